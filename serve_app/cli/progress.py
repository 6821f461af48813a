"""How far a long command is: a bar for a person, lines for a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextmanager
def shown() -> Iterator[Callable[[str, int, int], None]]:
    """Call it with what is being done, how much of all is, and how much there is (0: not known). Writes to stderr."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        said = set[str]()

        def line(what: str, done: int, total: int) -> None:
            if what not in said:
                said.add(what)
                console.print(what, markup=False)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")

        def move(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=max(done, total) if total else None)

        yield move


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def counted(what: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """Call it with how many more are done: a bar with the rate and the rest of the time, or a line every tenth part."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        began, first, step = time.monotonic(), done, max(total // 10, 1)
        console.print(f"{what}: {done:,} of {total:,}", markup=False)

        def line(more: int) -> None:
            nonlocal done
            if done // step != (done + more) // step:
                rate = (done + more - first) / max(time.monotonic() - began, 1e-3)
                console.print(f"{what}: {done + more:,} of {total:,} ({rate:,.0f}/s)", markup=False)
            done += more

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=10) as bar:
        task = bar.add_task(what, completed=done, total=total)
        yield lambda more: bar.advance(task, more)
