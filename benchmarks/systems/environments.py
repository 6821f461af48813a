"""Virtual environments for the peers under .bench/, made on first use from pinned requirements."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = REPOSITORY / "benchmarks" / "peers"


def environment(name: str, console: Console) -> Path:
    """The `bin` folder of the environment with `peers/<name>.txt` installed; made again when that file changed."""
    requirements, home = PEERS / f"{name}.txt", REPOSITORY / ".bench" / name
    digest, stamp = hashlib.sha256(requirements.read_bytes()).hexdigest(), home / "installed"
    if not stamp.exists() or stamp.read_text() != digest:
        console.print(f"installing {name} into {home} (once, about a minute)", highlight=False)
        venv.create(home, with_pip=True, clear=True)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "-qq", "--no-deps", "-r"]
        subprocess.run([*command, str(requirements)], check=True, stdout=sys.stderr)  # noqa: S603
        stamp.write_text(digest)
    return home / "bin"


def pinned(name: str, package: str) -> str:
    """The version of `package` in `peers/<name>.txt`."""
    lines = (PEERS / f"{name}.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.lower().startswith(f"{package}=="))
