"""Clocks that jump, disks that are slow or full, event loops that are blocked: what is put into the processes of a
service under test as they start, and how it is told."""

import mmap
import os
import shutil
import signal
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
SITE = Path(__file__).with_name("site")  # Python's processes read its sitecustomize.py
BLOCK = signal.SIGRTMIN + 7
HEAD, SLOT, SLOTS = struct.Struct("qq"), struct.Struct("qq"), 16


class Shim:
    """Made in `folder`. `there`: a C compiler was found; without one, clocks and disks are as they are."""

    def __init__(self, folder: Path) -> None:
        library, self._commands, self._block = folder / "shim.so", folder / "shim.commands", folder / "shim.block"
        self._commands.write_bytes(bytes(HEAD.size + SLOTS * SLOT.size))
        self._commands.chmod(0o644)
        compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
        self.there = compiler is not None
        path = os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH"))))
        self.environment = {"PYTHONPATH": path, "FAULTS_BLOCK": str(self._block)}
        if compiler is not None:
            subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
            library.chmod(0o755)
            self.environment |= {"LD_PRELOAD": str(library), "FAULTS_SHIM": str(self._commands)}
        with self._commands.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def disk(self, full: bool = False, delay: float = 0.0) -> None:
        """Of PostgreSQL's write-ahead log: no space in it, or `delay` seconds for each fsync."""
        HEAD.pack_into(self._memory, 0, full, round(delay * 1e6))

    def clock(self, slot: int, pid: int, jump: float) -> None:
        """From now on the process `pid` and its children are `jump` seconds ahead; 0 puts them right."""
        SLOT.pack_into(self._memory, HEAD.size + slot % SLOTS * SLOT.size, pid, round(jump * 1e9))

    def block(self, pid: int, seconds: float) -> None:
        """Nothing of this Python process runs for so long."""
        self._block.write_text(str(seconds))
        with suppress(ProcessLookupError):
            os.kill(pid, BLOCK)
