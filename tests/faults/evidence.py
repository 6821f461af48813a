"""The end of every log of a service that did not come back, so that somebody can find out why."""

from pathlib import Path

from serve_app.embedded.folder import DataFolder
from tests.e2e.brain import Brain

END = 64 << 10  # bytes of each
LINES = 12


def collect(brain: Brain) -> dict[str, bytes]:
    """By name: those of `brain up`, of its servers, and of Serve."""
    folder = DataFolder(brain.data)
    serve = folder.runtime() / "r" / "t" / "session_latest" / "logs" / "serve"
    found = [brain.log, *sorted(folder.logs.glob("*.log")), *sorted(serve.rglob("*.log"))]
    return {path.name: _end(path) for path in found if path.is_file()}


def keep(logs: dict[str, bytes], place: Path) -> None:
    place.mkdir(exist_ok=True, mode=0o700)
    for name, text in logs.items():
        (place / name).write_bytes(text)


def told(logs: dict[str, bytes]) -> str:
    """The last lines of each, for whoever sees no more than what was printed."""
    return "\n".join(
        f"--- {name}\n" + "\n".join(text.decode(errors="replace").splitlines()[-LINES:]) for name, text in logs.items()
    )


def _end(path: Path) -> bytes:
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - END, 0))
        return log.read()
