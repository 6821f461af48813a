"""Runs a command on the set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers.given import VARIABLE
from tests.servers.install import Missing, programs
from tests.servers.running import running


def run(command: list[str], folder: Path | None = None) -> int:
    """Starts the set, runs `command` with the set's file in its environment, and ends the set; the exit status.

    2, and a line that says why, where the programs are missing.
    """
    try:
        found = programs()
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    print(found.versions(), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what has been started of the set ends too
    with running(found) as servers:
        environment = {**os.environ, VARIABLE: str(servers.write())}
        child = subprocess.Popen(command, env=environment, cwd=folder)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the child as well, and its end is waited for
        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
        return child.wait()
