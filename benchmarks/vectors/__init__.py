"""`python -m benchmarks vectors`: search in messages' vectors, beside exact search; how it grows with their number.

Each size is filled and searched in a process of its own, through the store that the service uses (LanceDB).
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.vectors.data import DATA
from benchmarks.vectors.measure import Plan, Result, measure

SIZES = (1_000, 10_000, 100_000, 200_000)
BAR_ROWS, RECALL, P50 = 200_000, 0.97, 15.0  # what must be reached, from so many rows, without a condition


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--rows", type=_numbers, default=SIZES, help="stored vectors (1000,10000,100000,200000)")
    parser.add_argument("--questions", type=int, default=300, help="searches of each kind (300)")
    parser.add_argument("--texts", type=int, default=12_000, help="embedded, of which vectors are variations (12000)")
    parser.add_argument("--seed", type=int, default=1, help="of texts, variations and questions (1)")
    parser.add_argument("--indexed-from", type=int, help="rows from which there is an index (as the service does)")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of banking77/, clinc150/ and sgd/ ({DATA})")
    parser.add_argument("--output", type=Path, default=Path(".bench/vectors.json"), help="figures as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> None:
    """Measure every size, print, write the file; exit status 1 where 200,000 or more do not reach the bar."""
    found: list[Result] = []
    for rows in chosen.rows:
        plan = Plan(rows, chosen.questions, chosen.texts, chosen.seed, chosen.indexed_from, chosen.data)
        with console.status(f"{rows} vectors"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                found += process.submit(measure, plan).result()
            except (OSError, ValueError) as error:
                console.print(f"the data cannot be read: {error}", markup=False, soft_wrap=True)
                raise SystemExit(2) from None
        console.print(_line(found[-1], rows), markup=False)
    console.print(_table(found))
    machine = facts.machine()
    console.print(f"{facts.line(machine)}; load average {os.getloadavg()[0]:.1f}; seed {chosen.seed}", markup=False)
    body = {"machine": machine, "options": vars(chosen) | {"run": None}, "results": [one._asdict() for one in found]}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(body, indent=1, default=str) + "\n")
    missed = [one for one in found if one.condition == "none" and one.rows >= BAR_ROWS]
    missed = [one for one in missed if one.recall < RECALL or one.p50 > P50]
    for one in missed:
        console.print(f"{one.rows} vectors: recall {one.recall:.3f} (≥ {RECALL}), p50 {one.p50:.1f} ms (≤ {P50})")
    if missed:
        raise SystemExit(1)


def _line(one: Result, rows: int) -> str:
    return (
        f"{rows} vectors: stored in {one.stored_s:.1f} s, upkeep {one.upkeep_s:.1f} s, on disk {one.disk_mb:.0f} MB, "
        f"memory {one.memory_mb:.0f} MB more, {'indexed' if one.indexed else 'exact'}"
    )


def _table(found: list[Result]) -> Table:
    table = Table(title="the 10 nearest")
    for name in ("vectors", "condition", "search", "recall@10", "p50 ms", "p95 ms"):
        table.add_column(name, justify="left" if name in ("condition", "search") else "right")
    for one in found:
        how = "index" if one.indexed else "exact"
        table.add_row(f"{one.rows:,}", one.condition, how, f"{one.recall:.4f}", f"{one.p50:.1f}", f"{one.p95:.1f}")
    return table


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
