"""What `brain up` tells on stderr: a spinner for a person, plain lines for a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


class Reporter:
    """Lines on stderr; `step` times a part of the start."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._running: list[str] = []
        self._status = self.console.status("") if self.console.is_terminal else None

    def line(self, text: str) -> None:
        """Something that happened, with its time of day."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {escape(text)}", soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part of the start; several may run at once."""
        began = time.monotonic()
        self._running.append(name)
        self._show()
        try:
            yield
        finally:
            self._running.remove(name)
            self._show()
        self.console.print(f"[green]✓[/] {escape(name)} [dim]({time.monotonic() - began:.1f} s)[/]", soft_wrap=True)

    def _show(self) -> None:
        if self._status is None:
            return
        if self._running:
            self._status.update(f"{', '.join(self._running)} …")
            self._status.start()
        else:
            self._status.stop()
