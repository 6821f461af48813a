"""What `brain chat` reads and prints: a terminal with a prompt, or plain lines when it is part of a pipe."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
_HISTORY = 1000  # lines


class Screen:
    """In a pipe, replies alone go to standard output; what is said about them goes to standard error."""

    def __init__(self, history: Path | None = None) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = self._out if self.interactive else Console(stderr=True, highlight=False, soft_wrap=True)
        self._history = history if self.interactive else None
        self._open_line = False
        if self.interactive:
            _use_readline(self._history)

    def ask(self) -> str | None:
        """The next line of the user; None at the end. Raises KeyboardInterrupt."""
        try:
            if self.interactive:
                return input("\001\033[1;36m\002>\001\033[0m\002 ")
            line = sys.stdin.readline()
        except EOFError:
            self._out.out("")
            return None
        return line.rstrip("\r\n") if line else None

    def text(self, text: str, style: str | None = None) -> None:
        """A piece of a reply, as it comes. No model moves the cursor of a terminal."""
        if text:
            self._out.out(text.translate(_CONTROLS) if self._out.is_terminal else text, style=style, end="")
            self._out.file.flush()
            self._open_line = not text.endswith("\n")

    def end_of_text(self) -> None:
        if self._open_line:
            self._out.out("")
        self._open_line = False

    def note(self, text: str, style: str = "dim") -> None:
        """One line about the conversation."""
        if self._err is self._out:
            self.end_of_text()
        self._err.out(" ".join(text.translate(_CONTROLS).split()), style=style)

    def error(self, text: str) -> None:
        self.note(text, style="red")

    def aside(self, text: str) -> None:
        """A line that only a person wants."""
        if self.interactive:
            self.note(text)

    def message(self, message: dict[str, Any]) -> None:
        """A message of the history."""
        mark = "> " if message["role"] == "user" else ""
        self.text(mark + message["content"], style="dim" if self.interactive else None)
        self.end_of_text()
        if message["status"] != "completed":
            self.note(f"({message['status']})")

    def close(self) -> None:
        if self._history is not None:
            _keep_history(self._history)


def _use_readline(history: Path | None) -> None:
    with contextlib.suppress(ImportError):
        import readline

        readline.set_history_length(_HISTORY)
        if history is not None:
            with contextlib.suppress(OSError):
                readline.read_history_file(history)


def _keep_history(path: Path) -> None:
    """What the user typed, for the next start; only the user can read it."""
    with contextlib.suppress(ImportError, OSError):
        import readline

        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        readline.write_history_file(path)
