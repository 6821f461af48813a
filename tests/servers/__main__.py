"""`python -m tests.servers`: starts PostgreSQL behind PgBouncer, and Redis, of the system, and runs tests on them."""

import argparse
import shlex
import sys

from tests.e2e.brain import ROOT
from tests.servers.command import run
from tests.servers.given import VARIABLE

SHORT = (
    "tests/storage/test_ownership.py",
    "tests/storage/test_leases.py",
    "tests/storage/test_rights.py",
    "tests/e2e/test_servers.py",
)
CHECKERS = ("fault_devices", "history_checker", "history_checker_cost", "planted_defects")
ALL = (*(f"tests/unit/test_{name}.py" for name in CHECKERS), "tests/storage", "tests/actors", "tests/e2e")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--all",
        action="store_true",
        help="tests of storage, interleavings, the faults' checker, actors and the whole service",
    )
    what.add_argument("--run", metavar="COMMAND", help=f"run this instead, with the set's file in {VARIABLE}")
    arguments = parser.parse_args()
    selected = ALL if arguments.all else SHORT
    command = shlex.split(arguments.run) if arguments.run else [sys.executable, "-m", "pytest", *selected]
    return run(command, ROOT)


if __name__ == "__main__":
    sys.exit(main())
