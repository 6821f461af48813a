"""A tenant's events as they come: from its stream in Redis, and from the outbox where that has them no more."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from domain.cloud_events import GAP, CloudEvent, matches, told
from domain.errors import Unavailable
from domain.ids import new_id
from domain.queue import tenant_stream
from storage.event_log import KeptEvents
from storage.event_tail import PAGE, EventTail, later

log = logging.getLogger("brain.events")

SLOWEST = timedelta(seconds=60)  # a row is committed within this time of its moment
_PLACE = re.compile(r"([0-9]{1,15}-[0-9]{1,15})\.([0-9]{1,18})", re.ASCII)
EVER = datetime.min.replace(tzinfo=UTC)
AGAIN = 0.5  # seconds until Redis is asked again


@dataclass(frozen=True, slots=True)
class Place:
    """Where a follower stands: behind an entry of the stream, which came from a row of the outbox. As a text, the id
    that an event is given out with."""

    entry: str
    row: int

    def __str__(self) -> str:
        return f"{self.entry}.{self.row}"


def parse_place(id: str) -> Place | None:
    """None for what no event was given out with."""
    found = _PLACE.fullmatch(id)
    return None if found is None else Place(found[1], int(found[2]))


class EventFeed:
    """One for all followers of a process."""

    def __init__(self, tail: EventTail, kept: KeptEvents) -> None:
        self._tail, self.kept = tail, kept

    async def follow(
        self, tenant: str, topics: Sequence[str] = ("*",), after: str | None = None, since: datetime | None = None
    ) -> AsyncGenerator[tuple[str, CloudEvent]]:
        """The tenant's events of types that `topics` match (`message.received`, `turn.*`, `*`), with ids to go on
        `after`; without one, those from `since` on; without either, those that come from now on. It has no end.

        At least once, in the order in which each conversation's were committed: an event may come again, also after
        later ones, with the same `CloudEvent.id`. An event of the type `events.gap`, which matches all topics, tells
        that events in between are kept by nobody any more. While Redis is away nothing comes, and then all of it.

        Raises `Overloaded` where events wait for too long to be taken. Close it (`contextlib.aclosing`) when done.
        """
        place = None if after is None else parse_place(after) or Place("0-0", 0)
        began = datetime.now(UTC) - SLOWEST
        wanted = (*topics, GAP)
        while True:
            try:
                async with aclosing(self._walk(tenant, place, since)) as walk:
                    async for place, event in walk:
                        if matches(wanted, event.type):
                            yield str(place), event
            except Unavailable as error:
                log.debug("events cannot be followed at the moment: %s", error)
                if place is None and since is None:
                    since = began
                await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        await self._tail.close()

    async def _walk(
        self, tenant: str, place: Place | None, since: datetime | None
    ) -> AsyncGenerator[tuple[Place, CloudEvent]]:
        key = tenant_stream(tenant)
        entry = await self._place_in_stream(key, place, since)
        if entry is None:
            entry = await self._tail.last(key)  # whatever the outbox has not yet comes behind it
            async for found in self._kept(tenant, place, since):
                yield found
        while page := await self._tail.page(key, entry):
            for entry, row, event in page:
                yield Place(entry, row), event
            if len(page) < PAGE:
                break
        reader = await self._tail.join(key, entry)
        try:
            while True:
                for entry, row, event in await reader.take():
                    yield Place(entry, row), event
        finally:
            self._tail.leave(reader)

    async def _place_in_stream(self, key: str, place: Place | None, since: datetime | None) -> str | None:
        """The id behind which the stream surely has all that is wanted; None where the outbox has to be asked."""
        if place is not None:
            return place.entry if await self._tail.has(key, place.entry) else None
        if since is None:
            return await self._tail.last(key)
        before = f"{max(int(since.timestamp() * 1000) - 1, 0)}-0"
        first = await self._tail.first(key)
        return before if first is not None and later(before, first) else None

    async def _kept(
        self, tenant: str, place: Place | None, since: datetime | None
    ) -> AsyncIterator[tuple[Place, CloudEvent]]:
        """All rows that the outbox still has from this place on, with ids that lead to it again."""
        if place is not None:
            moment = await self.kept.moment(tenant, place.row)
            since = EVER if moment is None else moment - SLOWEST
        assert since is not None
        if since is EVER or not await self.kept.whole_since(tenant, since):
            gap = CloudEvent(new_id("evt"), GAP, tenant, datetime.now(UTC), tenant)
            yield place or Place("0-0", 0), gap
        row = 0
        while facts := await self.kept.since(tenant, since, row, PAGE):
            for fact in facts:
                row = fact.id
                for event in told(fact):
                    yield Place("0-0", row), event
