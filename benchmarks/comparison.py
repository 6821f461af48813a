"""`python -m benchmarks`: every chosen system, one after another, under the same workloads."""

import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.load import LoadGenerator
from benchmarks.measurements import Measurement, measure
from benchmarks.mock_spec import reply_tokens
from benchmarks.process_tree import MemoryWatch, StartFailed, below
from benchmarks.rows import LABELS, Stage, stages
from benchmarks.systems import Provider, mock
from benchmarks.targets import Target
from benchmarks.workloads import Workload

T = TypeVar("T")


def compare(
    rows: Sequence[str], loads: Sequence[Workload], seconds: float, warm_up: float, console: Console
) -> Iterator[Measurement]:
    """Start, warm up, measure and stop each system; yields a cell of the table as soon as it is measured."""
    plan = stages(rows, loads, console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        mock.start(Path(folder)) as provider,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=sum(len(stage.rows) * len(stage.loads) for stage in plan))

        def say(text: str, done: int = 0) -> None:
            progress.update(task, description=text, advance=done)
            if not console.is_terminal and not done:
                print(text, file=sys.stderr, flush=True)

        for number, stage in enumerate(plan):
            own = Path(folder) / str(number)
            own.mkdir()
            own.chmod(0o755)
            try:
                yield from _measured(stage, provider, own, seconds, warm_up, say)
            except (StartFailed, RuntimeError, OSError) as error:
                console.print(f"[red]{', '.join(LABELS[row] for row in stage.rows)}: left out[/red]", style=None)
                console.print(str(error), markup=False)


def _measured(
    stage: Stage, provider: Provider, folder: Path, seconds: float, warm_up: float, say: Callable[..., None]
) -> Iterator[Measurement]:
    before: set[psutil.Process] = set(below())
    say(f"starting: {LABELS[stage.rows[0]]}")
    with stage.start(provider, folder) as targets:
        for row in stage.rows:
            for load in stage.loads:
                mock.reset(provider)
                say(f"{LABELS[row]}: {load.name}")
                yield _one(row, targets[row], load, seconds, warm_up, set() if row == "mock" else before)
                say(f"{LABELS[row]}: {load.name}", done=1)


def _one(
    row: str, target: Target, load: Workload, seconds: float, warm_up: float, before: set[psutil.Process]
) -> Measurement:
    generator = LoadGenerator(target, load, expected_text)
    with MemoryWatch(before) as memory:
        window = run(generator.run(warm_up, seconds))
    cell = measure(row, load, window)
    return dataclasses.replace(cell, rss_bytes=memory.peak_rss, pss_bytes=memory.pss)


def expected_text(prompt: str, tokens: int) -> str:
    """What the mock provider says to `prompt`."""
    return "".join(reply_tokens(prompt, tokens))


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
