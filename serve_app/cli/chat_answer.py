"""One answer in `brain chat`: its events become text, and Ctrl-C becomes a cancellation."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager

from domain import events
from domain.events import Event
from serve_app.cli.chat_screen import Screen
from serve_app.embedded.refusal import Refusal


class Answer:
    """Shows one turn. `turn_id` is known once the turn is accepted; `interrupts` counts Ctrl-C."""

    def __init__(self, screen: Screen, cancel: Callable[[str], Awaitable[object]], turn_id: str | None = None) -> None:
        self._screen, self._cancel = screen, cancel
        self.turn_id = turn_id
        self.interrupts = 0
        self.failed = False
        self._text = ""
        self._cancelling: asyncio.Task[None] | None = None

    async def show(self, stream: AsyncGenerator[Event, None]) -> None:
        """Print it to its end. The first Ctrl-C cancels its turn; the second leaves the turn running."""
        reading: asyncio.Task[None] = asyncio.create_task(self._read(stream))
        with self._interrupting(reading):
            try:
                await reading
            except asyncio.CancelledError:
                if not reading.cancelled() or self.interrupts < 2:
                    raise
                self._screen.note("left; the turn goes on at the service")
            finally:
                reading.cancel()
                self._screen.end_of_text()

    async def _read(self, stream: AsyncGenerator[Event, None]) -> None:
        async with aclosing(stream):
            async for event in stream:
                self._show(event)
        if self._cancelling is not None:
            await self._cancelling

    def _show(self, event: Event) -> None:
        screen, data = self._screen, event.data
        if event.type == events.ACCEPTED:
            self.turn_id = event.turn_id
            if self.interrupts:
                self._ask_to_cancel(event.turn_id)
        elif event.type == events.DELTA:
            self._text += data["text"]
            screen.text(data["text"])
        elif event.type == events.RESET:
            self._text = ""
            screen.end_of_text()
            screen.note(f"the answer begins anew: {data['reason']}")
        elif event.type == events.FAILED:
            self.failed = True
            screen.end_of_text()
            screen.error(f"the turn failed: {data['error']['message']}")
        elif event.type in events.TERMINAL:
            self._show_end(event)

    def _show_end(self, event: Event) -> None:
        """What the stream did not carry of the reply (it carries no text while the journal is away), and figures."""
        screen, message = self._screen, event.data.get("message") or {}
        whole = str(message.get("content") or "")
        if not whole.startswith(self._text):
            screen.end_of_text()
            self._text = ""
        screen.text(whole[len(self._text) :])
        screen.end_of_text()
        if event.type == events.CANCELLED:
            screen.note("cancelled")
        elif usage := event.data.get("usage"):
            cost = event.data.get("cost_usd")
            price = f", ${cost:.6f}" if cost else ""
            screen.aside(f"{message.get('model')}, {usage['total_tokens']} tokens{price}")

    @contextmanager
    def _interrupting(self, reading: "asyncio.Task[None]") -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self.interrupts += 1
            if self.interrupts > 1:
                reading.cancel()
            else:
                self._screen.aside("cancelling; Ctrl-C again leaves the turn running")
                if self.turn_id is not None:
                    self._ask_to_cancel(self.turn_id)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _ask_to_cancel(self, turn_id: str) -> None:
        async def cancel() -> None:
            try:
                await self._cancel(turn_id)
            except Refusal as refusal:
                self._screen.error(str(refusal))

        if self._cancelling is None:
            self._cancelling = asyncio.create_task(cancel())
