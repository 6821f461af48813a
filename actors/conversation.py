"""One conversation: an object with a mailbox, whose consumer handles one message at a time and writes to Postgres.

The consumer never waits for a generation: it starts a task and goes on, so accept, cancel and interrupt are always
served.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from actors.accepting import accept_within, check_models, reservations, unfinished
from actors.driving import drive, end_generations
from actors.mailbox import Mailbox
from actors.parts import Parts
from actors.run import TurnRun
from actors.shadowing import shadow
from actors.summarising import summarise
from actors.telling import opening, tell_end
from actors.turn import LiveTurn
from actors.window import Window
from domain.commands import Accepted, Append, Appended, Change, Ended, Send
from domain.conversation import Conversation, ConversationKey
from domain.errors import BrainError, Fenced, ModelNotFound, NotFound, Overloaded, Unavailable
from domain.events import Layout
from domain.ledger import Charge
from domain.model_settings import ModelSettings
from domain.ports import AcceptedTurn, Ownership, Reply
from domain.tool_calls import ToolCall
from domain.turn import TurnStatus

DELETING = 2.0  # seconds that a conversation's deletion waits for the ends of its turns


class ConversationActor:
    """Created when a message arrives; discards itself when another host owns the conversation (`Fenced`)."""

    __slots__ = ("_owner", "_starting", "_summarising", "_window", "key", "mailbox", "on_stop", "parts", "turns")

    def __init__(self, key: ConversationKey, parts: Parts, on_stop: Callable[["ConversationActor"], None]) -> None:
        self.key, self.parts, self.on_stop = key, parts, on_stop
        self.mailbox = Mailbox(parts, self._activate, self.stop)
        self.turns: dict[str, LiveTurn] = {}
        self._starting: asyncio.Task[None] | None = None
        self._summarising: asyncio.Task[None] | None = None
        self._owner: Ownership | None = None
        self._window: Window | None = None

    # What others ask.

    async def send(self, send: Send) -> Accepted | Ended:
        settings = await self.parts.models.settings(self.key.tenant)
        try:
            check_models(self.parts.catalog, settings, send)
        except ModelNotFound:
            earlier = await self.parts.store.replayed(self.key, send)
            if earlier is None:
                raise
            return await self._answer(send, earlier, self.turns.get(earlier.turn.id))
        if send.on_busy == "interrupt":
            found = await self.mailbox.do(partial(self._interrupt, send))
            if isinstance(found, AcceptedTurn):
                return await self._answer(send, found, self.turns.get(found.turn.id))
            await asyncio.gather(*(asyncio.shield(live.done) for live in found), return_exceptions=True)
        return await self._answer(send, *await self.mailbox.do(partial(self._accept, send, settings)))

    async def cancel(self, turn_id: str) -> None:
        live = await self.mailbox.do(partial(self._cancel, turn_id))
        if live is not None:
            await asyncio.shield(live.done)

    async def change(self, change: Change) -> Conversation:
        return await self.mailbox.do(partial(self._change, change))

    async def append(self, append: Append) -> Appended:
        return await self.mailbox.do(partial(self._append, append))

    async def delete(self) -> None:
        """End what runs, so that it is charged for, and delete. What takes longer than `DELETING` is left to itself."""
        running = await self.mailbox.do(self._cancel_all)
        if running:
            await asyncio.wait([live.done for live in running], timeout=DELETING)
        await self.mailbox.do(self._delete)

    async def resume(self) -> None:
        """Be active: taking over has started the unfinished turns."""
        await self.mailbox.do(_nothing)

    @property
    def quiet(self) -> bool:
        """Whether it may be put away: nothing waits and no turn is unfinished."""
        return not self.turns and self.mailbox.idle

    @property
    def size(self) -> int:
        """Bytes, an estimate."""
        return self._window.size if self._window is not None else 0

    def stop(self, error: BrainError) -> None:
        """End here: whoever waits gets `error`. Accepted turns stay for the next owner; their generations run on."""
        if self.mailbox.closed is not None:
            return
        self.mailbox.close(error)
        if self._summarising is not None:
            self._summarising.cancel()
        for live in self.turns.values():
            live.abandon(error)
        self.on_stop(self)

    # The work. Each runs in the consumer, with the conversation active.

    async def _activate(self) -> None:
        if self._owner is not None:
            return
        tenant = await self.parts.tenants.settings(self.key.tenant)
        found = await self.parts.store.activate(self.key, self.parts.host)
        self._window = Window(found.conversation, found.window_from, found.recent, found.model, found.summary, tenant)
        self._owner = found.ownership
        for asked in found.unfinished:
            self.turns[asked.turn.id] = LiveTurn.of(asked)
        for live in self.turns.values():
            if live.status is TurnStatus.RUNNING and live.task is None:
                self._run(live, inherited=True)
        await self._start_next()

    async def _interrupt(self, send: Send) -> AcceptedTurn | list[LiveTurn]:
        """Cancel what is unfinished, unless this very message was accepted before."""
        if self.turns:
            found = await self.parts.store.replayed(self.key, send)
            if found is not None:
                return found
        return await self._cancel_all()

    async def _accept(self, send: Send, settings: ModelSettings) -> tuple[AcceptedTurn, LiveTurn | None]:
        if len(self.turns) >= self.parts.limits.unfinished:
            found = await self.parts.store.replayed(self.key, send)
            if found is None:
                raise Overloaded("too many turns of this conversation are unfinished")
            return found, self.turns.get(found.turn.id)
        self._hot.tenant = await self.parts.tenants.settings(self.key.tenant)
        reserves = reservations(self.parts, settings, self._hot, send)
        accepted, held = await accept_within(self.parts.store, self.key, self._ownership, send, reserves)
        if accepted.turn.status is TurnStatus.QUEUED and not self.turns:
            raise Fenced("a turn stands that this owner does not know")  # the next activation inherits it
        if accepted.turn.id not in self.turns and not accepted.turn.status.ended:
            live = self.turns[accepted.turn.id] = LiveTurn.of(unfinished(accepted, send, held))
            if send.regenerates is None:
                self._hot.asked(accepted.user_message.seq, accepted.user_message.content)
            if live.status is TurnStatus.RUNNING:
                self._run(live, inherited=False)
            else:
                live.task = asyncio.create_task(self._turn_run(live).say(opening(live)))
        return accepted, self.turns.get(accepted.turn.id)

    async def _cancel_all(self) -> list[LiveTurn]:
        unfinished = list(self.turns.values())
        for live in unfinished:
            await self._cancel(live.id)
        return unfinished

    async def _cancel(self, turn_id: str) -> LiveTurn | None:
        live = self.turns.get(turn_id)
        if live is None:
            return None
        live.cancelled = True
        if live.status is TurnStatus.QUEUED:
            if live.task is not None:
                await asyncio.gather(live.task, return_exceptions=True)
            layout: Layout = [live.said[n] for n in sorted(live.said)]
            start = self._hot.start
            reply = Reply("cancelled", "", "", None, None, None, None, None, layout or None, {}, start)
            await self.finish(live, self._turn_run(live), reply)
        else:
            live.cancelling = asyncio.create_task(end_generations(self.parts, live))
        return live

    async def _change(self, change: Change) -> Conversation:
        changed = await self.parts.store.change(self.key, self._ownership, change.fields, change.end)
        self._hot.conversation = changed
        return changed

    async def _append(self, append: Append) -> Appended:
        appended = await self.parts.store.append(self._ownership, append)
        if not appended.replayed:
            self._hot.noted(appended.message.seq, appended.message.content)
        return appended

    async def _delete(self) -> None:
        await self.parts.store.delete(self.key, self._ownership)
        turns = list(self.turns.values())
        self.stop(NotFound("the conversation was deleted"))
        for live in turns:
            await end_generations(self.parts, live)

    async def finish(self, live: LiveTurn, run: TurnRun, reply: Reply) -> None:
        """Commit the turn's end, then tell. While the database is away the end waits outside of the mailbox."""
        if live.done.done():
            return
        try:
            ended = await self.parts.store.finish(self.key, self._ownership, live.asked, live.attempt, reply)
        except Fenced:
            raise
        except Unavailable:
            live.task = self.mailbox.later(partial(self.finish, live, run, reply))
            return
        self.turns.pop(live.id, None)
        live.status = ended.turn.status
        if (message := ended.message) is not None:
            whole = message.status == "completed"
            self._hot.replied(live.asked.order, message.seq, message.content, message.model, whole)
            if run.choice is not None:
                self._hot.answered(run.choice.prompt)
        self._hot.forget(reply.window_from, run.choice.prompt.summary if run.choice is not None else None)
        if not live.done.done():
            live.done.set_result(ended)
        shadow(run, reply, ended)
        if self._summarising is None or self._summarising.done():
            self._summarising = summarise(self, run, ended)
        live.task = asyncio.create_task(tell_end(self.parts, self.key.tenant, ended, len(reply.layout or ())))
        await self._start_next()

    async def keep_summary(self) -> None:
        """Store the window's summary for the next owner."""
        summary = self._hot.summary
        await self.parts.store.keep_summary(self.key, self._ownership, summary)
        self._hot.kept = summary

    async def next_attempt(self, live: LiveTurn, calls: tuple[Charge, ...]) -> None:
        """Make another attempt of the turn the current one; `calls`: what the one before it is charged for."""
        await self.parts.store.next_attempt(self.key, self._ownership, live.id, live.attempt + 1, calls)

    async def plan_calls(self, live: LiveTurn, calls: Sequence[ToolCall]) -> None:
        await self.parts.store.plan_calls(self.key, self._ownership, live.id, calls)

    async def start_calls(self, live: LiveTurn, round: int, by: str) -> list[ToolCall]:
        return await self.parts.store.start_calls(self.key, self._ownership, live.id, round, by)

    async def _start_next(self) -> None:
        """Start the turn that is next in order; while the database is away, later."""
        try:
            await self._start_first()
        except Fenced:
            raise
        except Unavailable:
            self._starting = self.mailbox.later(self._start_first)

    async def _start_first(self) -> None:
        while self.turns and not any(live.status is TurnStatus.RUNNING for live in self.turns.values()):
            live = next(iter(self.turns.values()))
            live.cancelled |= await self.parts.store.start(self.key, self._ownership, live.id)
            inherited = live.task is None  # its first owner has said its opening
            if live.task is not None:
                await asyncio.gather(live.task, return_exceptions=True)
            live.status = TurnStatus.RUNNING
            self._run(live, inherited)

    def _run(self, live: LiveTurn, inherited: bool) -> None:
        live.task = asyncio.create_task(drive(self, self._turn_run(live), inherited))

    def _turn_run(self, live: LiveTurn) -> TurnRun:
        return TurnRun(self.parts, self.key, live, self._hot, self._ownership.epoch)

    async def _answer(self, send: Send, accepted: AcceptedTurn, live: LiveTurn | None) -> Accepted | Ended:
        if live is None:
            ended = await self.parts.store.ended(self.key.tenant, accepted.turn.id)
            if ended is None:
                raise Fenced("the turn runs elsewhere")
            return Ended(ended.turn, ended.user_message, ended.message, accepted.replayed)
        if send.wait:
            ended = await asyncio.shield(live.done)
            return Ended(ended.turn, ended.user_message, ended.message, accepted.replayed)
        return live.accepted(accepted.replayed, await asyncio.shield(live.opened))

    @property
    def _ownership(self) -> Ownership:
        assert self._owner is not None
        return self._owner

    @property
    def _hot(self) -> Window:
        return cast(Window, self._window)


async def _nothing() -> None:
    return None
