"""`python -m benchmarks`: what this service costs beside its parts and its peers, on this machine."""

import argparse
import atexit
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import (
    access,
    autoscaling,
    backup,
    catalogue,
    context,
    conversation_length,
    entities,
    events,
    facts,
    fairness,
    fallback,
    hot_memory,
    kill,
    overload,
    pooler,
    products,
    reconcile,
    report,
    results,
    rollouts,
    routing,
    soak,
    sockets,
    understanding,
    vectors,
    vllm,
    words_index,
)
from benchmarks.comparison import compare
from benchmarks.measurements import Measurement
from benchmarks.process_tree import adopt_orphans, end_all
from benchmarks.rows import LABELS, PEER_ROWS
from benchmarks.workloads import standard

COMMANDS = {
    "access": access,
    "autoscaling": autoscaling,
    "backup": backup,
    "catalogue": catalogue,
    "context": context,
    "conversation-length": conversation_length,
    "entities": entities,
    "events": events,
    "fairness": fairness,
    "fallback": fallback,
    "hot-memory": hot_memory,
    "intents": understanding,
    "kill": kill,
    "overload": overload,
    "pooler": pooler,
    "products": products,
    "reconcile": reconcile,
    "rollouts": rollouts,
    "routing": routing,
    "soak": soak,
    "sockets": sockets,
    "vectors": vectors,
    "vllm": vllm,
    "words-index": words_index,
}
RESULTS = Path(".bench/results.json")


def options() -> argparse.ArgumentParser:
    """All options, those of the sub-commands too."""
    peers = os.environ.get("BENCH_PEERS") == "1"
    rows = [row for row in LABELS if peers or row not in PEER_ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(","),
        default=rows,
        help=f"comma-separated, of: {', '.join(LABELS)} (default: {'all' if peers else 'all but the peers'}; "
        "the peers come in with BENCH_PEERS=1)",
    )
    parser.add_argument("--seconds", type=float, default=6, help="measured time of a cell (6)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds of load before each cell (2)")
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 32], help="1,32")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a reply (64)")
    parser.add_argument("--gap-ms", type=int, default=10, help="between tokens in the paced cell; 0 leaves it out (10)")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"figures as JSON ({RESULTS})")
    parser.add_argument("--markdown", action="store_true", help="print the README's table at the end")
    parser.set_defaults(run=comparison)
    commands = parser.add_subparsers(title="more", metavar="COMMAND")
    show = commands.add_parser("show", help="print the table of an earlier run")
    show.add_argument("file", type=Path, nargs="?", default=RESULTS)
    show.add_argument("--markdown", action="store_true")
    show.set_defaults(run=show_results)
    for name, module in COMMANDS.items():
        module.arguments(commands.add_parser(name, help=str(module.__doc__).splitlines()[0].split(": ", 1)[1]))
    return parser


def comparison(chosen: argparse.Namespace, console: Console) -> None:
    """Measure, print, and write the file; also when it is broken off."""
    if unknown := set(chosen.rows) - set(LABELS):
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(LABELS)}")
    loads = standard(chosen.clients, chosen.tokens, chosen.gap_ms)
    cells: list[Measurement] = []
    try:
        for cell in compare(chosen.rows, loads, chosen.seconds, chosen.warm_up, console):
            cells.append(cell)
            results.write(chosen.output, facts.machine(), vars(chosen) | {"run": None}, cells)
    finally:
        output(cells, facts.machine(), chosen.markdown, console)


def show_results(chosen: argparse.Namespace, console: Console) -> None:
    """Print a file."""
    if not chosen.file.exists():
        raise SystemExit(f"no figures at {chosen.file}: measure first, or name a file")
    machine, cells = results.read(chosen.file)
    output(cells, machine, chosen.markdown, console)


def output(cells: list[Measurement], machine: dict[str, str], markdown: bool, console: Console) -> None:
    """The tables, what went wrong, and the machine."""
    for table in report.tables(cells):
        console.print(table)
    for line in report.errors(cells):
        console.print(line, markup=False, style="red")
    console.print(facts.line(machine))
    if markdown:
        print(report.markdown(cells, facts.line(machine)))


def main() -> None:
    """Parse and run. Whatever was started ends with this process."""
    chosen = options().parse_args()
    adopt_orphans()
    atexit.register(end_all)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 180)
    try:
        chosen.run(chosen, console)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
