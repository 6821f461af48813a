"""The data folder: who holds it, its secrets, and what it remembers from start to start."""

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from serve_app.embedded.refusal import Refusal
from storage.private_file import new_file


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only its owner can ever read it."""
    with new_file(path) as file:
        file.write(text.encode())


class DataFolder:
    """A folder that one `brain up` at a time works on. Opening it makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
            self.secrets.mkdir(exist_ok=True, mode=0o700)
            if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError("permission denied")
            self._state = self._read_state()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Refusal(
                f"the data folder {self.path} cannot be used ({reason}): name another one with --data"
            ) from None

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def instance(self) -> str:
        """Marks the processes that belong to this folder."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:16]

    def lock(self) -> IO[str]:
        """Hold the folder until the returned file is closed, or this process is gone."""
        file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise Refusal(
                f"another `brain` (process {holder or 'unknown'}) is running on {self.path}: "
                "stop it, or name another folder with --data"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def secret(self, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
        """A secret that is made once and kept."""
        path = self.secrets / name
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            value = make()
            write_private(path, value)
            return value
        except OSError as error:
            raise Refusal(f"{path} cannot be read ({error.strerror}): give it back to this user") from None

    def recall(self, name: str) -> Any:
        """What `remember` was told under this name, or None."""
        return self._state.get(name)

    def remember(self, name: str, value: Any) -> None:
        self._state[name] = value
        write_private(self.path / "state.json", json.dumps(self._state, indent=1))

    def runtime(self) -> Path:
        """A folder with a short path for sockets (a socket's path has at most 107 bytes), private to this user."""
        stored = Path(self.recall("runtime") or "/nowhere")
        if not _is_private(stored):
            base = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()  # noqa: S108
            stored = Path(tempfile.mkdtemp(prefix="brain-", dir=base))
            self.remember("runtime", str(stored))
        return stored

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.path / "state.json").read_text())
        except FileNotFoundError:
            state = {}
        except ValueError:
            state = {}  # ports and paths, all of which can be chosen again
        if not isinstance(state, dict) or state.get("instance") != self.instance:
            return {"instance": self.instance}  # a copied folder must not share sockets with its original
        return state


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o022
