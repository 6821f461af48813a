"""`python -m tests.nodes`: the service over two Ray nodes, while one of them is drained, dies, or is cut off.

Each node is a network namespace of this machine, with an address, a port 8000 and a /tmp of its own. The head also has
PostgreSQL, Redis, a mock provider, the clients and their load balancer.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.brain import mock_provider
from tests.faults import campaign
from tests.nodes import report, trial
from tests.nodes.balancer import balancer
from tests.nodes.scenarios import SCENARIOS, Scenario
from tests.nodes.service import Service
from tests.nodes.space import HEAD, known, space, why_not
from tests.nodes.stores import stores

NODES = (HEAD, "east", "west")  # two of them run; the third one takes the place of one that leaves


def main() -> int:
    """0: nothing contradicts a sequential conversation, and each request had its answer. 1: else. 2: not possible."""
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="scenarios whose name has this regular expression"
    )
    parser.add_argument("--clients", type=int, default=8, help="at once (8)")
    parser.add_argument("--seed", type=int, help="of the clients (a fresh one, which is printed)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where logs and histories are kept")
    parser.add_argument("--list", action="store_true", help="the scenarios' names")
    parser.add_argument("--inside", metavar="MARK", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    scenarios = [one for one in SCENARIOS if re.search(chosen.only, one.name)]
    if chosen.list:
        print(*(one.name for one in scenarios), sep="\n")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with this process
    seed = campaign.fresh_seed() if chosen.seed is None else chosen.seed
    if chosen.inside:
        return _inside(chosen.inside, chosen.keep, scenarios, seed, chosen.clients)
    if reason := why_not():
        print(f"no network namespaces: {reason}")
        return 2
    print(f"seed {seed}", flush=True)
    with ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        mark = folder.name.strip("_")[-6:]
        made = stack.enter_context(space(mark))
        for name in NODES[1:]:
            made.add(name)
        command = [sys.executable, "-m", "tests.nodes", *sys.argv[1:], "--inside", mark]
        command += ["--seed", str(seed), "--keep", str(folder.resolve())]
        return subprocess.run([*made.machines[HEAD].inside, *command]).returncode


def _inside(mark: str, folder: Path, scenarios: list[Scenario[Service]], seed: int, clients: int) -> int:
    """On the head."""
    machines = known(mark, NODES)
    head = machines.machines[HEAD]
    with stores(folder, head.address) as there:
        return _tried(Service(machines, folder, there, ""), scenarios, seed, clients)


def _tried(service: Service, scenarios: list[Scenario[Service]], seed: int, clients: int) -> int:
    began = time.monotonic()

    def told(said: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {said}", flush=True)

    machines = service.space.machines
    with mock_provider(service.base, service.head.address) as service.provider:
        told("starting two nodes")
        for name in NODES[:2]:
            service.start_node(machines[name])
        service.deploy()
        service.wait([machines[name] for name in NODES[:2]])
        told("both nodes are ready")
        with balancer(service.base, [machine.address for machine in machines.values()]) as url:
            front = trial.Front(url, service.stores.key)
            trials = []
            for scenario in scenarios:
                trials.append(trial.run(service, front, scenario, seed, clients, told))
                report.tell(trials[-1], service.base)
    print(report.table(trials))
    return int(not all(one.passed for one in trials))


if __name__ == "__main__":
    sys.exit(main())
