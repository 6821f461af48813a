"""How far a long command is: a bar for a person, lines for a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


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
