"""`python -m tests.servers`: starts PostgreSQL behind PgBouncer, and Redis, of the system, and runs tests on them."""

import argparse
import os
import shlex
import signal
import subprocess
import sys

from tests.e2e.brain import ROOT
from tests.servers.given import VARIABLE
from tests.servers.install import Missing, programs
from tests.servers.running import running

SHORT = ("tests/storage/test_ownership.py", "tests/storage/test_leases.py", "tests/e2e/test_servers.py")
ALL = ("tests/storage", "tests/actors", "tests/e2e", "--ignore=tests/storage/test_interleavings.py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--all",
        action="store_true",
        help="tests of storage, actors, the whole service",
    )
    what.add_argument("--run", metavar="COMMAND", help=f"run this instead, with the set's file in {VARIABLE}")
    arguments = parser.parse_args()
    try:
        found = programs()
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    print(found.versions(), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the set ends too
    selected = ALL if arguments.all else SHORT
    command = shlex.split(arguments.run) if arguments.run else [sys.executable, "-m", "pytest", *selected]
    with running(found) as servers:
        environment = {**os.environ, VARIABLE: str(servers.write())}
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
