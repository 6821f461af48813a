"""One conversation: an object with a mailbox. One consumer handles one message at a time and writes to Postgres.

The consumer never waits for a generation: it starts a task and goes on, so accept, cancel and interrupt are always
served. It runs only while something waits, so that a quiet conversation costs no task.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from actors.parts import Parts
from actors.recovery import bring_to_end
from actors.run import TurnRun, failure, opening, tell_end
from actors.turn import LiveTurn
from domain.commands import Accepted, Change, Ended, Send, UnfinishedTurn
from domain.context import Remembered
from domain.conversation import Conversation, ConversationKey
from domain.errors import (
    BrainError,
    CommitUnknown,
    Fenced,
    NotFound,
    Overloaded,
    Retryable,
    Unavailable,
)
from domain.events import Layout
from domain.ports import AcceptedTurn, Ownership, Reply
from domain.turn import TurnStatus

log = logging.getLogger("brain.conversation")
T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]
PATIENCE = (0.05, 0.2, 0.75)  # seconds between tries of an accept


class ConversationActor:
    """Created when a message arrives; discards itself when another host owns the conversation (`Fenced`)."""

    __slots__ = (
        "_consumer",
        "_conversation",
        "_mailbox",
        "_owner",
        "_starting",
        "_window",
        "_window_from",
        "key",
        "on_stop",
        "parts",
        "size",
        "stopped",
        "touched",
        "turns",
    )

    def __init__(self, key: ConversationKey, parts: Parts, on_stop: Callable[["ConversationActor"], None]) -> None:
        self.key, self.parts, self.on_stop = key, parts, on_stop
        self.turns: dict[str, LiveTurn] = {}
        self.touched = time.monotonic()
        self.size = 0  # bytes, an estimate
        self.stopped: BrainError | None = None
        self._mailbox: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._consumer: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._owner: Ownership | None = None
        self._conversation: Conversation | None = None
        self._window: list[Remembered] = []
        self._window_from = 1

    # What others ask.

    async def send(self, send: Send) -> Accepted | Ended:
        if send.on_busy == "interrupt":
            found = await self._do(partial(self._interrupt, send))
            if isinstance(found, AcceptedTurn):
                return await self._answer(send, found, self.turns.get(found.turn.id))
            await asyncio.gather(*(asyncio.shield(live.done) for live in found), return_exceptions=True)
        return await self._answer(send, *await self._do(partial(self._accept, send)))

    async def cancel(self, turn_id: str) -> None:
        live = await self._do(partial(self._cancel, turn_id))
        if live is not None:
            await asyncio.shield(live.done)

    async def change(self, change: Change) -> Conversation:
        return await self._do(partial(self._change, change))

    async def delete(self) -> None:
        await self._do(self._delete)

    async def resume(self) -> None:
        """Be active: taking over has started the unfinished turns."""
        await self._do(_nothing)

    @property
    def quiet(self) -> bool:
        """Whether it may be put away: nothing waits and no turn is unfinished."""
        return not self.turns and not self._mailbox and (self._consumer is None or self._consumer.done())

    def stop(self, error: BrainError) -> None:
        """End here: whoever waits gets `error`. Accepted turns stay for the next owner; their generations run on."""
        if self.stopped is not None:
            return
        self.stopped = error
        while self._mailbox:
            _, future = self._mailbox.popleft()
            self.parts.waiting -= 1
            _settle(future, error)
        for live in self.turns.values():
            if live.task is not None:
                live.task.cancel()
            if not live.done.done():
                live.done.set_exception(error)
            if not live.opened.done():
                live.opened.set_result(False)
        self.on_stop(self)

    # The mailbox.

    def _do(self, work: Callable[[], Awaitable[T]]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.stopped is not None:
            future.set_exception(self.stopped)
        elif len(self._mailbox) >= self.parts.limits.mailbox:
            future.set_exception(Overloaded("too many messages wait for this conversation"))
        else:
            self.touched = time.monotonic()
            self._mailbox.append((work, future))
            self.parts.waiting += 1
            if self._consumer is None or self._consumer.done():
                self._consumer = asyncio.create_task(self._consume())
        return future

    async def _consume(self) -> None:
        while self._mailbox and self.stopped is None:
            work, future = self._mailbox.popleft()
            self.parts.waiting -= 1
            try:
                if self._owner is None:
                    await self._activate()
                result = await work()
            except BrainError as error:
                _settle(future, error)
                if isinstance(error, Fenced) or type(error) is NotFound:
                    self.stop(error)
            except Exception as error:  # a defect: the caller learns of it, the conversation goes on
                _settle(future, error)
            else:
                if not future.done():
                    future.set_result(result)

    async def _activate(self) -> None:
        found = await self.parts.store.activate(self.key, self.parts.host)
        self._conversation, self._window_from = found.conversation, found.window_from
        self._window = found.recent
        self.size = 2000 + sum(200 + len(message.content) for message in self._window)
        self._owner = found.ownership
        for asked in found.unfinished:
            self.turns[asked.turn.id] = LiveTurn.of(asked)
        self._start_running(inherited=True)
        await self._start_next()

    # The work. Each runs in the consumer, with the conversation active.

    async def _interrupt(self, send: Send) -> AcceptedTurn | list[LiveTurn]:
        """Cancel what is unfinished, unless this very message was accepted before."""
        if self.turns:
            found = await self.parts.store.replayed(self.key, send)
            if found is not None:
                return found
        interrupted = list(self.turns.values())
        for live in interrupted:
            await self._cancel(live.id)
        return interrupted

    async def _accept(self, send: Send) -> tuple[AcceptedTurn, LiveTurn | None]:
        if len(self.turns) >= self.parts.limits.unfinished:
            found = await self.parts.store.replayed(self.key, send)
            if found is None:
                raise Overloaded("too many turns of this conversation are unfinished")
            return found, self.turns.get(found.turn.id)
        accepted = await self._accept_patiently(send)
        if accepted.turn.status is TurnStatus.QUEUED and not self.turns:
            raise Fenced("a turn stands that this owner does not know")  # the next activation inherits it
        if accepted.turn.id not in self.turns and not accepted.turn.status.ended:
            asked = UnfinishedTurn(
                accepted.turn, accepted.user_message, send.model, send.parameters, send.live, send.understand
            )
            live = self.turns[asked.turn.id] = LiveTurn.of(asked)
            self._remember(asked.order, asked.user_message.seq, "user", asked.user_message.content)
            if live.status is TurnStatus.RUNNING:
                self._run(live, inherited=False)
            else:
                live.task = asyncio.create_task(self._turn_run(live).say(opening(live)))
        return accepted, self.turns.get(accepted.turn.id)

    async def _accept_patiently(self, send: Send) -> AcceptedTurn:
        """Accept, again after a lost connection: the key makes a repeated accept find what the first one committed."""
        unknown: CommitUnknown | None = None
        for pause in (*PATIENCE, None):
            try:
                return await self.parts.store.accept(self.key, self._ownership, send)
            except CommitUnknown as error:
                unknown = error
            except Unavailable:
                if pause is None:
                    raise (unknown or Unavailable("the database cannot be reached")) from None
            if pause is None:
                raise unknown or Unavailable("the database cannot be reached")
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _cancel(self, turn_id: str) -> LiveTurn | None:
        live = self.turns.get(turn_id)
        if live is None:
            return None
        live.cancelled = True
        if live.status is TurnStatus.QUEUED:
            if live.task is not None:
                await asyncio.gather(live.task, return_exceptions=True)
            run = self._turn_run(live)
            layout: Layout = [live.said[n] for n in sorted(live.said)]
            reply = Reply("cancelled", "", "", None, None, None, None, None, layout or None, {}, self._window_from)
            await self._finish(live, run, reply)
        else:
            live.trace["cancelling"] = asyncio.create_task(self._tell_model(live))
        return live

    async def _tell_model(self, live: LiveTurn) -> None:
        """Ask for the generation's end until the turn has one: the first wish may come before the generation does."""
        while not live.done.done():
            if live.request is not None:
                with suppress(Retryable):  # its process is gone: recovery finds the turn cancelled
                    await self.parts.llm.cancel(live.request)
            await asyncio.wait([live.done], timeout=0.3)

    async def _change(self, change: Change) -> Conversation:
        store = self.parts.store
        self._conversation = await store.change(self.key, self._ownership, change.fields, change.end)
        return self._conversation

    async def _delete(self) -> None:
        await self.parts.store.delete(self.key, self._ownership)
        for live in self.turns.values():
            if live.request is not None:
                with suppress(Retryable):
                    await self.parts.llm.cancel(live.request)
        self.stop(NotFound("the conversation was deleted"))

    async def _finish(self, live: LiveTurn, run: TurnRun, reply: Reply) -> None:
        """Commit the turn's end, then tell. While the database is away the end waits outside of the mailbox."""
        if live.done.done():
            return
        try:
            ended = await self.parts.store.finish(self.key, self._ownership, live.asked, live.attempt, reply)
        except Fenced:
            raise
        except Unavailable:
            live.task = self._later(partial(self._finish, live, run, reply))
            return
        self.turns.pop(live.id, None)
        live.status = ended.turn.status
        self._window_from = max(self._window_from, reply.window_from)
        if ended.message is not None:
            self._remember(live.asked.order, ended.message.seq, "assistant", ended.message.content)
        self._forget()
        if not live.done.done():
            live.done.set_result(ended)
        live.task = asyncio.create_task(tell_end(run, ended, len(reply.layout or ())))
        await self._start_next()

    async def _next_attempt(self, live: LiveTurn) -> None:
        await self.parts.store.next_attempt(self.key, self._ownership, live.id, live.attempt + 1)

    async def _start_next(self) -> None:
        """Start the turn that is next in order; while the database is away, later."""
        try:
            await self._start_first()
        except Fenced:
            raise
        except Unavailable:
            self._starting = self._later(self._start_first)

    def _later(self, work: Work) -> "asyncio.Task[None]":
        """Have `work` done by the consumer once the database is back."""

        async def wait() -> None:
            await asyncio.sleep(0.5)
            with suppress(Fenced, NotFound):
                await self._until_done(work)

        return asyncio.create_task(wait())

    async def _start_first(self) -> None:
        while self.turns and not any(live.status is TurnStatus.RUNNING for live in self.turns.values()):
            live = next(iter(self.turns.values()))
            live.cancelled |= await self.parts.store.start(self.key, self._ownership, live.id)
            inherited = live.task is None  # its first owner has said its opening
            if live.task is not None:
                await asyncio.gather(live.task, return_exceptions=True)
            live.status = TurnStatus.RUNNING
            self._run(live, inherited)

    # Turns in the background.

    def _start_running(self, inherited: bool) -> None:
        for live in self.turns.values():
            if live.status is TurnStatus.RUNNING and live.task is None:
                self._run(live, inherited)

    def _run(self, live: LiveTurn, inherited: bool) -> None:
        live.task = asyncio.create_task(self._drive(live, inherited))

    async def _drive(self, live: LiveTurn, inherited: bool) -> None:
        run = self._turn_run(live)
        layout: Layout | None = None
        try:
            outcome, layout = await bring_to_end(
                run, inherited, lambda turn: self._until_done(partial(self._next_attempt, turn))
            )
        except Fenced:
            return  # the next owner brings it to its end
        except Exception:
            log.exception("a turn failed by a defect", extra={"turn_id": live.id})
            outcome = failure(BrainError("an internal error ended this turn"), live.id)
        if not live.opened.done():
            live.opened.set_result(layout is not None)
        try:
            with suppress(Fenced, NotFound):
                await self._until_done(partial(self._finish, live, run, run.reply(outcome, layout)))
        except Exception:
            log.exception("the end of a turn was refused", extra={"turn_id": live.id})
            live.trace.pop("context", None)
            plain = failure(BrainError("an internal error ended this turn"), live.id)
            with suppress(Fenced, NotFound):
                await self._until_done(partial(self._finish, live, run, run.reply(plain, None)))

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """Through the mailbox, again while the database is away. Ends with `Fenced` when another host took over."""
        while True:
            try:
                return await self._do(work)
            except Fenced:
                raise
            except Retryable:
                await asyncio.sleep(0.5)

    def _turn_run(self, live: LiveTurn) -> TurnRun:
        conversation = cast(Conversation, self._conversation)
        return TurnRun(self.parts, self.key, live, conversation, self._window, self._window_from)

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

    def _remember(self, order: int, seq: int, role: Any, content: str) -> None:
        self._window.append(Remembered.of(order, seq, role, content))
        self.size += 200 + len(content)

    def _forget(self) -> None:
        """Let go of what no prompt will tell again."""
        if self._window and self._window[0].order < self._window_from:
            self._window = [message for message in self._window if message.order >= self._window_from]
            self.size = 2000 + sum(200 + len(message.content) for message in self._window)


async def _nothing() -> None:
    return None


def _settle(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
