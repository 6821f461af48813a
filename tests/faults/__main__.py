"""`python -m tests.faults`, also as `brain verify`: a campaign of faults, and the verdict on what its clients saw."""

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from tests.faults import campaign, report, summary
from tests.faults.checker import check
from tests.faults.faults import FAULTS, HEAVY, OF_THE_SYSTEM
from tests.faults.history import History
from tests.faults.sabotage import DEFECTS, find
from tests.servers.command import run
from tests.servers.given import servers


def main() -> int:
    """0: nothing contradicts a sequential conversation. 1: something does, or the service did not come back."""
    parser = argparse.ArgumentParser(prog="brain verify", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long clients work (120)")
    parser.add_argument("--clients", type=int, default=16, help="at once (16)")
    parser.add_argument("--seed", type=int, help="of the clients and the faults (a fresh one, which is printed)")
    parser.add_argument("--without-faults", action="store_true", help="clients alone")
    parser.add_argument(
        "--ray", action="store_true", help="also end Ray itself or take its memory: up to a minute each"
    )
    parser.add_argument(
        "--servers",
        choices=("embedded", "system"),
        default="embedded",
        help="those of `brain up`, or the system's: PostgreSQL behind PgBouncer, and Redis",
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name has this regular expression")
    parser.add_argument("--history", type=Path, help="where the history is written (only after a violation: here)")
    parser.add_argument(
        "--planted", action="store_true", help="plant defects into the service, and show that each is found"
    )
    parser.add_argument("--report", type=Path, metavar="PAGE", help="put the figures into this page of Markdown")
    parser.add_argument("--check", type=Path, metavar="FILE", help="judge a written history again, and do nothing else")
    chosen = parser.parse_args()
    console = Console()
    if chosen.check is not None:
        with chosen.check.open("rb") as lines:
            found = check(History.of(lines))
        for violation in found:
            console.print(str(violation), markup=False)
        console.print(f"{len(found)} violations")
        return int(bool(found))
    if chosen.planted:
        return _planted(chosen.only, console)
    if chosen.servers == "system" and servers() is None:
        return run([sys.executable, "-m", "tests.faults", *sys.argv[1:]])  # it finds them in its environment
    seed = campaign.fresh_seed() if chosen.seed is None else chosen.seed
    console.print(f"seed {seed}")
    faults = OF_THE_SYSTEM if servers() else FAULTS
    faults = () if chosen.without_faults else faults + (HEAVY if chosen.ray else ())
    faults = tuple(one for one in faults if re.search(chosen.only, one.name))
    with console.status("starting the service") as status:
        result = campaign.run(chosen.seconds, seed, chosen.clients, faults, status.update)
        status.update("checking")
        began = time.monotonic()
        violations = check(result.history)
        checked = time.monotonic() - began
    for line in summary.lines(result, violations):
        console.print(line, markup=False)
    console.print(f"Checked in {checked:.1f} s.")
    if chosen.report:
        report.write(chosen.report, result, violations)
    lost = [one for one in result.injected if one.recovered is None and one.ended]
    if lost:
        console.print(f"The service did not come back after: {' and '.join(lost[0].names)}")
    if chosen.history or violations:
        path = chosen.history or Path(f"history-{seed}.jsonl")
        path.write_bytes(b"\n".join(result.history.lines()) + b"\n")
        console.print(
            f"The history: {path}; `brain verify --check {path}` judges it again, `--seed {seed}` draws the same"
        )
    return int(bool(violations or lost))


def _planted(only: str, console: Console) -> int:
    """0 where each of the planted defects was found."""
    missed = 0
    for defect in DEFECTS:
        if not re.search(only, defect.name):
            continue
        with console.status(f"planting: {defect.name}") as status:
            verdict = find(defect, status.update)
        names = Counter(one.name for one in verdict.violations)
        found = ", ".join(f"{name} ({number})" for name, number in names.most_common()) or "NOT FOUND"
        console.print(f"{verdict.seconds:4.0f} s  {defect.name}: {found}", markup=False)
        missed += not names
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
