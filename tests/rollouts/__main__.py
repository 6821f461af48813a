"""`python -m tests.rollouts`: the service is scaled, configured anew, and replaced by other code while clients work."""

import argparse
import dataclasses
import re
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from tests.faults import campaign
from tests.faults.world import service as whole
from tests.nodes import report, trial
from tests.rollouts.scenarios import SCENARIOS
from tests.rollouts.service import Service


def main() -> int:
    """0: nothing contradicts a sequential conversation, and no request failed. 1: else."""
    parser = argparse.ArgumentParser(prog="python -m tests.rollouts", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="rollouts whose name has this regular expression")
    parser.add_argument("--seconds", type=float, default=5, help="how long clients go on after each (5)")
    parser.add_argument("--clients", type=int, default=8, help="at once (8)")
    parser.add_argument("--seed", type=int, help="of the clients (a fresh one, which is printed)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where histories are kept")
    parser.add_argument("--list", action="store_true", help="the rollouts' names")
    chosen = parser.parse_args()
    scenarios = [one for one in SCENARIOS if re.search(chosen.only, one.name)]
    if chosen.list:
        print(*(one.name for one in scenarios), sep="\n")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with this process
    seed = campaign.fresh_seed() if chosen.seed is None else chosen.seed
    began = time.monotonic()

    def told(said: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {said}", flush=True)

    told(f"seed {seed}: starting the service")
    trials = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollouts-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        kept = chosen.keep or folder
        kept.mkdir(parents=True, exist_ok=True)
        world = stack.enter_context(whole(seed))
        catalog = yaml.safe_load(Path(world.brain.arguments[-1]).read_text())
        service = Service(world.brain, folder, world.provider, catalog)
        front = trial.Front(world.brain.url, world.brain.key)
        for scenario in scenarios:
            service.rolled(service.config())
            this = dataclasses.replace(scenario, seconds=chosen.seconds)
            trials.append(trial.run(service, front, this, seed, chosen.clients, told))
            report.tell(trials[-1], kept)
    print(report.table(trials))
    return int(not all(one.passed for one in trials))


if __name__ == "__main__":
    sys.exit(main())
