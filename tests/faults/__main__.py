"""`python -m tests.faults`, also as `brain verify`: a campaign of faults, and the verdict on what its clients saw."""

import argparse
import faulthandler
import math
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tests.faults import campaign, evidence, report, summary
from tests.faults.checker import check
from tests.faults.faults import FAULTS, HEAVY, OF_THE_SYSTEM
from tests.faults.history import History
from tests.faults.sabotage import DEFECTS, find
from tests.servers.command import run
from tests.servers.given import servers

LATE = 900.0  # seconds for a campaign's start, its end and the check, beside what its clients work
EVERY = 15.0  # seconds between two lines of progress


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
    with overdue(chosen.seconds + LATE), _telling(console) as told:
        told("starting the service")
        result = campaign.run(chosen.seconds, seed, chosen.clients, faults, told)
        told("checking")
        began = time.monotonic()
        violations = check(result.history)
        checked = time.monotonic() - began
    for line in summary.lines(result, violations):
        console.print(line, markup=False)
    console.print(f"Checked in {checked:.1f} s.")
    if chosen.report:
        report.write(chosen.report, result, violations)
    if result.lost:
        console.print(f"The service did not come back after: {' and '.join(result.lost[0].names)}")
    if result.lost or violations:
        place = Path(f"logs-{seed}")
        evidence.keep({**result.logs, "faults.txt": evidence.times(result.injected)}, place)
        console.print(evidence.told(result.logs), markup=False)
        console.print(f"The logs: {place}")
    if chosen.history or violations:
        path = chosen.history or Path(f"history-{seed}.jsonl")
        path.write_bytes(b"\n".join(result.history.lines()) + b"\n")
        console.print(
            f"The history: {path}; `brain verify --check {path}` judges it again, `--seed {seed}` draws the same"
        )
    return int(bool(violations or result.lost))


def _planted(only: str, console: Console) -> int:
    """0 where each of the planted defects was found."""
    missed = 0
    for defect in DEFECTS:
        if not re.search(only, defect.name):
            continue
        with overdue(LATE), _telling(console) as told:
            told(f"planting: {defect.name}")
            verdict = find(defect, told)
        names = Counter(one.name for one in verdict.violations)
        found = ", ".join(f"{name} ({number})" for name, number in names.most_common()) or "NOT FOUND"
        console.print(f"{verdict.seconds:4.0f} s  {defect.name}: {found}", markup=False)
        missed += not names
    return int(missed > 0)


@contextmanager
def _telling(console: Console) -> Iterator[Callable[[str], None]]:
    """What is being done: at once on a terminal, else a line now and then."""
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return
    began, last = time.monotonic(), -EVERY

    def told(said: str) -> None:
        nonlocal last
        now = time.monotonic() - began
        if now - last >= EVERY:
            last = now
            print(f"{now:5.0f} s  {said}", flush=True)

    yield told


@contextmanager
def overdue(seconds: float) -> Iterator[None]:
    """What takes longer has its stacks printed and ends, so that nobody waits for ever for a campaign."""

    def end(*_: object) -> None:
        faulthandler.dump_traceback()
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(math.ceil(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
