"""PostgreSQL refuses to run as root; for root it runs as a system user of its own."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from serve_app.embedded.child import Owner
from serve_app.embedded.refusal import Refusal

NAME = "pgserver"


def unprivileged() -> Owner | None:
    """The system user for PostgreSQL, made if it is missing; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        _make()
        entry = pwd.getpwnam(NAME)
    return Owner(entry.pw_uid, entry.pw_gid, NAME)


def _make() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    refusal = Refusal(
        f"PostgreSQL does not run as root and the user {NAME!r} cannot be made: run `brain` as another user"
    )
    if useradd is None:
        raise refusal
    made = subprocess.run(  # noqa: S603
        [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME],
        capture_output=True,
        check=False,
    )
    if made.returncode not in (0, 9):  # 9: another start was faster
        raise refusal


def let_traverse(path: Path) -> None:
    """Let other users pass through the folders above `path`; they can list and read no more than before."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)


def let_read(root: Path) -> None:
    """Let other users read and run an installed program."""
    let_traverse(root)
    for path in (root, *root.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        wanted = mode | 0o004 | (0o001 if path.is_dir() or mode & 0o100 else 0)
        if wanted != mode:
            path.chmod(wanted)
