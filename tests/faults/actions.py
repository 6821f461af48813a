"""Clients of a campaign: each does what a careful client does, as it is drawn from its seed.

Whatever was left unanswered is asked again under the same key, and a stream that broke is resumed behind its last
event. All that they learn goes into the history.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from domain.events import TERMINAL
from tests.faults.calls import Caller
from tests.faults.history import Operation

MOST = 12  # conversations of a group of clients at a time
LONG = 40  # messages of a conversation, after which it is left alone
PATIENCE = 120.0  # seconds that a client goes on asking for one thing
WAITS = (0.05, 0.6)  # seconds between two tries
FAULTY = ("fault=cut,at=3", "fault=truncate,at=3", "status=500,times=1,per=message", "fault=error_event,at=2")


class Stranded(Exception):
    """There is nothing that a client could work on."""


@dataclass(slots=True)
class Shared:
    """What the clients of a group know together: their conversations, with some of the turns and replies in each."""

    sent: dict[str, int] = field(default_factory=dict)
    turns: list[tuple[str, str]] = field(default_factory=list)
    replies: list[tuple[str, str]] = field(default_factory=list)


class Client:
    """`until`: the monotonic second at which it begins nothing more; it may be changed. `obeys`: it comes again no
    sooner than it was told to."""

    def __init__(self, caller: Caller, seed: str, shared: Shared, until: float, obeys: bool = False) -> None:
        self._caller, self._shared, self.until, self._obeys = caller, shared, until, obeys
        self._drawn = random.Random(seed)
        self._number = 0

    async def run(self) -> None:
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (24, self._send),
            (34, self._send_streamed),
            (16, self._read),
            (8, self._look),
            (6, self._follow),
            (5, self._cancel),
            (4, self._send_twice),
            (3, self._regenerate),
            (1, self._delete),
        ]
        weights = [weight for weight, _ in actions]
        while time.monotonic() < self.until:
            (_, action) = self._drawn.choices(actions, weights)[0]
            with suppress(Stranded):
                await action()

    async def _conversation(self) -> str:
        open_ones = [name for name, number in self._shared.sent.items() if number < LONG]
        if len(open_ones) < MOST and (not open_ones or self._drawn.random() < 0.2):
            call = await self._asked(lambda last: self._caller.create(self._key("create"), last))
            if call is not None:
                self._shared.sent[call.conversation] = 0
                return call.conversation
            if not open_ones:
                raise Stranded("no conversation could be created")
        return self._drawn.choice(open_ones)

    async def _send(self) -> None:
        conversation, content, key, options = await self._message()
        call = await self._asked(lambda last: self._caller.send(conversation, content, key, options, last))
        self._learn(call)

    async def _send_twice(self) -> None:
        """The same message at once over two connections."""
        conversation, content, key, options = await self._message()
        tries = (
            self._asked(lambda last: self._caller.send(conversation, content, key, options, last)) for _ in range(2)
        )
        for call in await asyncio.gather(*tries):
            self._learn(call)

    async def _send_streamed(self) -> None:
        conversation, content, key, options = await self._message()
        enough = self._drawn.randint(1, 12) if self._drawn.random() < 0.3 else None
        call = await self._asked(
            lambda last: self._caller.send_streamed(conversation, content, key, options, enough, last)
        )
        self._learn(call)
        if call is not None and call.events:
            await self._to_the_end(call)

    async def _follow(self) -> None:
        """A turn that somebody asked for, from its beginning."""
        if self._shared.turns:
            conversation, turn = self._drawn.choice(self._shared.turns)
            await self._to_the_end(await self._once(self._caller.stream(conversation, turn, None)))

    async def _to_the_end(self, call: Operation) -> None:
        """Resume a stream until it has told the turn's end."""
        turn, last = call.turn_told, (call.events[-1].id if call.events else None)
        deadline = time.monotonic() + PATIENCE
        ended = bool(call.events) and call.events[-1].type in TERMINAL
        while not ended and call.outcome != "refused" and time.monotonic() < deadline:
            if call.outcome != "ok":
                await self._pause(call)
            enough = self._drawn.randint(1, 20) if self._drawn.random() < 0.2 else None
            call = await self._caller.stream(call.conversation, turn, last, enough)
            if call.events:
                last, ended = call.events[-1].id, call.events[-1].type in TERMINAL

    async def _read(self) -> None:
        await self._once(self._caller.read(await self._conversation()))

    async def _look(self) -> None:
        if self._shared.turns:
            await self._once(self._caller.look(*self._drawn.choice(self._shared.turns[-40:])))

    async def _cancel(self) -> None:
        """A turn that has just begun, or one that has ended long ago."""
        conversation, content, key, options = await self._message()
        enough = self._drawn.randint(1, 6)
        call = await self._once(self._caller.send_streamed(conversation, content, key, options, enough))
        self._learn(call)
        if call.events:
            turn = call.turn_told
            await self._asked(lambda last: self._caller.cancel(conversation, turn))
            await self._to_the_end(call)

    async def _regenerate(self) -> None:
        if self._shared.replies:
            conversation, message = self._drawn.choice(self._shared.replies[-40:])
            key = self._key("regenerate")
            self._learn(await self._asked(lambda last: self._caller.regenerate(conversation, message, key, last)))

    async def _delete(self) -> None:
        conversation = await self._conversation()
        self._shared.sent[conversation] = LONG  # nobody begins anything in it any more; what has begun goes on
        await self._asked(lambda last: self._caller.delete(conversation))

    async def _asked(self, ask: Callable[[int | None], Awaitable[Operation]]) -> Operation | None:
        """Ask until there is a definite answer; None where there is none, or it is a refusal."""
        last: int | None = None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            call = await ask(last)
            if call.acknowledged:
                return call
            if call.outcome == "refused" and call.http != 429:
                return None
            last = call.id
            await self._pause(call)
        return None

    async def _once(self, asked: Awaitable[Operation]) -> Operation:
        """A call that is not made again. Whoever gets no answer waits all the same before the next one."""
        call = await asked
        if call.outcome == "unknown" and not call.events:
            await self._pause(call)
        return call

    async def _pause(self, call: Operation) -> None:
        told = (call.retry_after or 0.0) if self._obeys else 0.0
        await asyncio.sleep(told + self._drawn.uniform(*WAITS))

    async def _message(self) -> tuple[str, str, str, dict[str, str]]:
        """Where, what, under which key and how; no two have the same text."""
        conversation = await self._conversation()
        self._shared.sent[conversation] += 1
        self._number += 1
        content = f"{self._caller.name} says {self._number}"
        model = f"mock,n={self._drawn.randint(1, 60)},itl={self._drawn.choice((0, 1, 5, 20, 40))}"
        if self._drawn.random() < 0.05:
            model += f",{self._drawn.choice(FAULTY)}"
        options = {"model": model}
        if self._drawn.random() < 0.1:
            options["on_busy"] = self._drawn.choice(("interrupt", "reject"))
        return conversation, content, self._key("send"), options

    def _key(self, what: str) -> str:
        self._number += 1
        return f"{self._caller.name}-{what}-{self._number}"

    def _learn(self, call: Operation | None) -> None:
        if call is None or not call.turn_told:
            return
        self._shared.turns.append((call.conversation, call.turn_told))
        if call.reply is not None and call.kind == "send":
            self._shared.replies.append((call.conversation, call.reply.id))
