"""`python -m benchmarks pooler`: what PgBouncer in transaction mode costs kept turns, beside direct connections.

Two services stand on one PostgreSQL of the system, each with a database of its own, and are asked in turns while the
other one is stopped. Ratios are taken within a round.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import expected_text, run
from benchmarks.load import LoadGenerator
from benchmarks.measurements import Measurement, measure
from benchmarks.process_tree import asleep, below
from benchmarks.systems import brain, mock
from benchmarks.targets import Target
from benchmarks.workloads import Workload

DIRECT, POOLED = "direct", "PgBouncer"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--rounds", type=int, default=5, help="of both (5)")
    parser.add_argument("--seconds", type=float, default=5, help="measured time of a load in a round (5)")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds of load before (1)")
    parser.add_argument("--clients", type=int, default=16, help="of the larger load (16)")
    parser.set_defaults(run=compare)


def compare(chosen: argparse.Namespace, console: Console) -> None:
    """Rounds of both; medians over the rounds, and of the ratios in each."""
    from tests.servers.install import programs
    from tests.servers.running import running

    loads = [Workload(clients, streamed=True, tokens=8) for clients in (1, chosen.clients)]
    cells: dict[tuple[str, str], list[Measurement]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        given = stack.enter_context(running(programs()))
        provider = stack.enter_context(mock.start(folder))
        targets: dict[str, Target] = {}
        processes = {}
        for place in (DIRECT, POOLED):
            settings = given.settings(given.make_database(), pooled=place == POOLED)
            own, before = folder / place, set(below())
            own.mkdir(mode=0o755)
            targets[place] = stack.enter_context(brain.start(provider, own, env=settings)).chat(kept=True)
            processes[place] = set(below()) - before
        for number in range(chosen.rounds):
            order = (DIRECT, POOLED) if number % 2 == 0 else (POOLED, DIRECT)
            for load in loads:
                for place in order:
                    generator = LoadGenerator(targets[place], load, expected_text)
                    with asleep(processes[POOLED if place == DIRECT else DIRECT]):
                        cell = measure(place, load, run(generator.run(chosen.warm_up, chosen.seconds)))
                    cells.setdefault((load.name, place), []).append(cell)
    for load in loads:
        console.print(_table(load, cells[load.name, DIRECT], cells[load.name, POOLED]))
    console.print(facts.line(facts.machine()))


def _table(load: Workload, direct: list[Measurement], pooled: list[Measurement]) -> Table:
    table = Table("kept turns", DIRECT, POOLED, "ratio", "ratios of the rounds", title=load.name)
    rows: tuple[tuple[str, Callable[[Measurement], float]], ...] = (
        ("turns/s", lambda cell: cell.requests_per_s),
        ("first text p50, ms", lambda cell: cell.first_p50_ms or float("nan")),
        ("first text p99, ms", lambda cell: cell.first_p99_ms or float("nan")),
        ("whole answer p50, ms", lambda cell: cell.p50_ms),
        ("wrong or failed", lambda cell: cell.wrong),
    )
    for title, of in rows:
        pairs = [(of(one), of(other)) for one, other in zip(direct, pooled, strict=True)]
        middle = [statistics.median(values) for values in zip(*pairs, strict=True)]
        ratios = sorted(pool / straight for straight, pool in pairs if straight)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else ""
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        table.add_row(title, *(f"{value:.1f}" for value in middle), ratio, spread)
    return table
