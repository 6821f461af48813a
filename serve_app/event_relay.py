"""Carries events from the outbox to Redis, in the order in which each conversation's were committed.

One relay works at a time, by a lease; others stand by. A row is confirmed after Redis has it, and Redis knows which
rows it has that are not confirmed: whatever stops a relay, the next one goes on without a loss or a repetition.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from domain.cloud_events import Fact
from domain.errors import Fenced, Unavailable
from storage.event_log import PostgresEventLog, RelayLag, Term
from storage.event_streams import DataLost, EventStreams, Published
from storage.event_topics import PostgresTopics

log = logging.getLogger("brain.relay")

BATCH = 500  # rows: what a relay holds in memory at the most, twice
SOON, LATER = 0.01, 0.1  # seconds between two looks: after work, and when nothing came for a while
DOZE = 10.0  # seconds without work until it is later
SHARE = 4  # a look that took long is followed by a pause so many times as long: Postgres has other things to do
CHECK = 1.0  # seconds between two looks at whether Redis has lost something
TROUBLE = 2.0  # seconds, the longest pause after a failure
STAND_BY = 0.25  # seconds between two tries to take over
KEPT = 86_400.0  # seconds that topics keep an event, as the outbox does
ROUND = 5.0  # seconds between two looks at the topics, and at the lag


@dataclass
class RelayFigures:
    """Since the start. `leading`: whether it is this relay that works."""

    leading: bool = False
    rows: int = 0
    events: int = 0
    entries: int = 0
    lost: int = 0
    failures: int = 0
    dead: int = 0
    lag: RelayLag = field(default_factory=lambda: RelayLag(0, 0.0))


class EventRelay:
    """`republish`: seconds of events that are told again to a Redis that lost its data."""

    def __init__(
        self,
        log: PostgresEventLog,
        streams: EventStreams,
        topics: PostgresTopics,
        republish: float = 3600,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._streams, self._topics_of = log, streams, topics
        self._republish, self._monotonic = republish, monotonic
        self._term: Term | None = None
        self._position = 0
        self._renewed = self._looked = self._checked = 0.0
        self._topics: dict[str, tuple[str, ...]] = {}
        self._done: list[Fact] = []  # Redis has these, and they are not confirmed
        self._forgotten: list[Fact] = []  # these are, and Redis remembers them
        self._tasks: list[asyncio.Task[None]] = []
        self._told = ""
        self.figures = RelayFigures()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._measure())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._term is not None:
            with contextlib.suppress(Exception):
                await self._confirm()
                await self._log.release()
        await self._streams.close()

    async def step(self) -> int | None:
        """Confirm the batch before, and publish the next one: how many rows it was; None without the right to work."""
        if not await self._lead():
            return None
        assert self._term is not None
        if self._term.again_after is not None:
            return await self._again(self._term)
        facts = await self._take(self._term)
        if facts or self._forgotten or self._monotonic() - self._checked >= CHECK:
            return await self._publish(self._term, facts)
        return 0

    async def _lead(self) -> bool:
        now = self._monotonic()
        if self._term is None or now - self._renewed >= self._log.lease / 3:
            term = await self._log.term()
            if term is None or self._term is None or term.epoch != self._term.epoch:
                self._done, self._forgotten = [], []
                self._position = term.position if term is not None else 0
                self._term = term
            self._renewed = now
        self.figures.leading = self._term is not None
        if self._term is not None and (not self._topics or now - self._looked >= ROUND):
            self._topics = {topic.name: topic.patterns for topic in await self._topics_of.all()}
            self._looked = now
        return self._term is not None

    async def _take(self, term: Term, limit: int = BATCH) -> list[Fact]:
        done = self._done
        facts = await self._log.take(term.epoch, [fact.id for fact in done], self._position, limit)
        self._done = []
        self._forgotten += done
        return facts

    async def _publish(self, term: Term, facts: list[Fact]) -> int:
        try:
            published = await self._streams.publish(
                term.epoch, term.marker, self._position, facts, self._topics, self._forgotten
            )
        except DataLost:
            await self._begin_anew(term)
            return 0
        self._count(published, facts)
        self._done, self._forgotten = facts, []
        for fact in facts:
            if fact.topic == "tenant.deleted":
                await self._streams.forget(fact.tenant)
        return len(facts)

    def _count(self, published: Published, facts: list[Fact]) -> None:
        self._position, self._checked = published.position, self._monotonic()
        self.figures.rows += len(facts)
        self.figures.events += published.events
        self.figures.entries += published.entries

    async def _begin_anew(self, term: Term) -> None:
        """Redis is empty, or of an earlier time: what waits and the rows of the last hour are told (again)."""
        if max(term.position, self._position) > 0:  # else it never had any
            log.warning("Redis has lost events: those of the last %.0f s are published again", self._republish)
            self.figures.lost += 1
        marker = await self._log.lost(term.epoch, self._republish)
        await self._streams.adopt(term.epoch, marker)
        self._term = Term(term.epoch, marker, 0, 0)
        self._position, self._done, self._forgotten = 0, [], []

    async def _again(self, term: Term) -> int:
        assert term.again_after is not None
        facts = await self._log.again(term.epoch, term.again_after, self._position, BATCH)
        try:
            published = await self._streams.publish(
                term.epoch, term.marker, self._position, facts, self._topics, self._forgotten
            )
        except DataLost:
            await self._begin_anew(term)
            return 0
        self._count(published, facts)
        self._forgotten = facts
        after = facts[-1].id if facts else None
        if after is None:
            await self._log.again(term.epoch, term.again_after, self._position, 0)
        self._term = Term(term.epoch, term.marker, self._position, after)
        return len(facts)

    async def _confirm(self) -> None:
        if self._term is not None and self._done:
            await self._take(self._term, 0)

    async def _work(self) -> None:
        worked, trouble = self._monotonic(), SOON
        while True:
            began = self._monotonic()
            try:
                rows = await self.step()
                trouble, self._told = SOON, ""
                now = self._monotonic()
                if rows:
                    worked = now
                    continue
                pause = STAND_BY if rows is None else SOON if now - worked < DOZE else LATER
                pause = max(pause, min(SHARE * (now - began), LATER)) if rows is not None else pause
            except Fenced:
                self._stand_down()
                pause = STAND_BY
            except Unavailable as error:
                self.figures.failures += 1
                pause = trouble = min(2 * trouble, TROUBLE)
                self._say(f"events are not published at the moment: {error}")
            except Exception as error:
                self.figures.failures += 1
                pause = trouble = min(2 * trouble, TROUBLE)
                self._say(f"events are not published: {type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    def _stand_down(self) -> None:
        self._term, self._done, self._forgotten = None, [], []
        self.figures.leading = False

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self.figures.lag = await self._log.lag()
                if self.figures.leading:
                    await self._streams.trim(list(self._topics), KEPT)
                self.figures.dead = await self._streams.dead_letters(list(self._topics))
            await asyncio.sleep(ROUND)

    def _say(self, words: str) -> None:
        if words != self._told:
            log.warning(words)
            self._told = words
