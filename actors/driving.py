"""A turn in the background: from its start to the commit of its end, each write through the mailbox."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from actors.mailbox import Mailbox
from actors.parts import Parts
from actors.recovery import bring_to_end
from actors.run import TurnRun
from actors.telling import failure
from actors.tooling import tools_told
from actors.turn import LiveTurn
from domain.errors import BrainError, Fenced, NotFound, Retryable
from domain.events import Layout
from domain.ledger import Charge
from domain.ports import Reply
from domain.tool_calls import ToolCall

log = logging.getLogger("brain.conversation")


class Owner(Protocol):
    """The conversation's actor, as a turn in the background sees it. Its methods are for its own consumer."""

    mailbox: Mailbox

    def finish(self, live: LiveTurn, run: TurnRun, reply: Reply) -> Awaitable[None]: ...

    def next_attempt(self, live: LiveTurn, calls: tuple[Charge, ...]) -> Awaitable[None]: ...

    def plan_calls(self, live: LiveTurn, calls: Sequence[ToolCall]) -> Awaitable[None]: ...

    def start_calls(self, live: LiveTurn, round: int, by: str) -> Awaitable[list[ToolCall]]: ...


class OwnersBook:
    """`actors.tooling.Book` of a turn: each entry is a piece of its owner's work."""

    def __init__(self, owner: Owner, live: LiveTurn) -> None:
        self._owner, self._live = owner, live

    async def plan(self, calls: Sequence[ToolCall]) -> None:
        await self._owner.mailbox.until_done(partial(self._owner.plan_calls, self._live, calls))

    async def start(self, round: int, by: str) -> list[ToolCall]:
        return await self._owner.mailbox.until_done(partial(self._owner.start_calls, self._live, round, by))


async def end_generations(parts: Parts, live: LiveTurn) -> None:
    """Ask for the generations' end until the turn has one: the first wish may come before the generation does."""
    while True:
        for request in live.requests:
            with suppress(Retryable):  # its process is gone: recovery finds the turn cancelled
                await parts.llm.cancel(request)
        if live.done.done():
            return
        await asyncio.wait([live.done], timeout=0.3)


async def drive(owner: Owner, run: TurnRun, inherited: bool) -> None:
    """Bring the turn to its end, whatever happens on the way; a turn whose conversation moved is the next owner's."""
    live = run.live
    layout: Layout | None = None
    try:
        outcome, layout = await bring_to_end(
            run,
            inherited,
            lambda turn, calls: owner.mailbox.until_done(partial(owner.next_attempt, turn, calls)),
            OwnersBook(owner, live),
        )
    except Fenced:
        return  # the next owner brings it to its end
    except Exception:
        log.exception("a turn failed by a defect", extra={"turn_id": live.id})
        outcome = failure(BrainError("an internal error ended this turn"), live.id)
    if not live.opened.done():
        live.opened.set_result(layout is not None)
    run.told |= tools_told(run)
    try:
        with suppress(Fenced, NotFound):
            await owner.mailbox.until_done(partial(owner.finish, live, run, run.reply(outcome, layout)))
    except Exception:
        log.exception("the end of a turn was refused", extra={"turn_id": live.id})
        run.choice = None
        plain = failure(BrainError("an internal error ended this turn"), live.id)
        with suppress(Fenced, NotFound):
            await owner.mailbox.until_done(partial(owner.finish, live, run, run.reply(plain, None)))
