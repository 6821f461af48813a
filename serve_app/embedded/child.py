"""A child process: marked as the data folder's, with its output in a log file."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSTANCE, PART = "BRAIN_INSTANCE", "BRAIN_PART"
MAX_LOG = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Owner:
    """The system user that a process runs as."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `environment` is all that the process sees besides its marks."""

    name: str
    arguments: Sequence[str]
    log: Path
    instance: str
    environment: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None
    folder: Path | None = None


def basic_environment() -> dict[str, str]:
    """For servers that need nothing of the user's environment."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class Child:
    """A started process. Its session is its own, so that a terminal's Ctrl-C reaches only the supervisor."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.process = process

    @classmethod
    async def start(cls, command: Command) -> "Child":
        environment = {**command.environment, INSTANCE: command.instance, PART: command.name}
        owner = command.owner
        with contextlib.suppress(OSError):
            if command.log.stat().st_size > MAX_LOG:
                command.log.replace(command.log.with_suffix(".old.log"))
        with command.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=command.folder,
                start_new_session=True,
                user=owner.uid if owner else None,
                group=owner.gid if owner else None,
                extra_groups=[] if owner else None,
                umask=0o077,
            )
        return cls(command, process)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def wait(self) -> int:
        return await self.process.wait()

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and give it its seconds; what lives on after the last is killed."""
        for number, seconds in (*steps, (signal.SIGKILL, 5.0)):
            if not self.alive:
                return
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), seconds)

    def last_words(self) -> str:
        """The last line of the log, for an error message."""
        try:
            lines = self.command.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
