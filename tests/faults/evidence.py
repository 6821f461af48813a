"""The end of every log of a service, so that somebody can find out why it did wrong, or did not come back."""

import re
from collections.abc import Sequence
from pathlib import Path

from serve_app.embedded.folder import DataFolder
from tests.e2e.brain import Brain
from tests.faults.injector import Injected

END = 256 << 10  # bytes of each
LINES = 12
LOUD = re.compile(rb"ERROR|Traceback|defect|refused")


def collect(brain: Brain) -> dict[str, bytes]:
    """By name: those of `brain up`, of its servers, and of Serve."""
    folder = DataFolder(brain.data)
    serve = folder.runtime() / "r" / "t" / "session_latest" / "logs" / "serve"
    found = [brain.log, *sorted(folder.logs.glob("*.log")), *sorted(serve.rglob("*.log"))]
    return {path.name: _end(path) for path in found if path.is_file() and path.stat().st_size}


def keep(logs: dict[str, bytes], place: Path) -> None:
    place.mkdir(exist_ok=True, mode=0o700)
    for name, text in logs.items():
        (place / name).write_bytes(text)


def told(logs: dict[str, bytes]) -> str:
    """The last lines of those that tell of something, for whoever sees no more than what was printed."""
    loud = {name: text.decode(errors="replace") for name, text in logs.items() if LOUD.search(text)}
    return "\n".join("\n".join([f"--- {name}", *text.splitlines()[-LINES:]]) for name, text in loud.items())


def times(injected: Sequence[Injected]) -> bytes:
    """When each fault began and ended, in the history's seconds."""
    return "".join(f"{one.began:.2f} {one.ended:.2f} {' and '.join(one.names)}\n" for one in injected).encode()


def _end(path: Path) -> bytes:
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - END, 0))
        return log.read()
