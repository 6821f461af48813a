"""Requests to channels that no channel signed: few from one address, and then next to none of them costs any work.

A request that is signed takes nothing. One that is not is counted like a failed sign-in, for all replicas; who is over
the bound is refused by this replica's memory. That stops nobody's channel from elsewhere, nor, where many services
share one address, the channels behind it: those that exist are looked at until they have used up their own bound there.
Which exist, a replica asks the database at most twice a minute, however many requests come.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection

from domain.errors import BrainError
from storage.attempts import Attempts, Limit, TooManyAttempts

log = logging.getLogger("brain.access")
WINDOW = 300.0  # seconds in which unsigned requests are counted
BY_BOTH, BY_ADDRESS = 30, 300  # of them in it, to one channel from one address, and from one address
BOUND = 10_000  # of addresses, and of channels with an address, that are remembered
EVERY = 30.0  # seconds from one list of the channels that exist to the next
PATIENCE = 1.0  # seconds that a request waits for a list, before the one before it counts
NO_ID = "none"  # all that is no channel's id counts as one channel

Place = tuple[str, str]
Existing = Callable[[], Awaitable[Collection[str]]]


class Unsigned:
    """`address`: as `Visit.network`. `channel`: what has the shape of a channel's id, whether there is one; None: what
    has not. `existing`: the ids of channels that there are."""

    def __init__(self, attempts: Attempts, existing: Existing, now: Callable[[], float] = time.monotonic) -> None:
        self._attempts, self._existing, self._now = attempts, existing, now
        self._refused: OrderedDict[Place, float] = OrderedDict()  # until when; "" for all channels
        self._known: Collection[str] = frozenset()
        self._listing: asyncio.Task[None] | None = None
        self._listed = now() - EVERY

    async def check(self, address: str, channel: str | None) -> None:
        """Before any other work. Raises `TooManyAttempts`."""
        until, now = self._refused.get((address, channel or NO_ID), 0.0), self._now()
        whole = self._refused.get((address, ""), 0.0)
        if whole > max(until, now) and not await self._exists(channel):
            until = whole
        if until > now:
            raise TooManyAttempts(int(until - now) + 1)

    async def failed(self, address: str, channel: str | None) -> None:
        """Count one; of no channel as of one, so that nobody learns here which there are. Raises `TooManyAttempts`
        where that is one too many."""
        waits = [  # each for itself: where one is full, the other counts on
            await self._count((address, ""), BY_ADDRESS),
            await self._count((address, channel or NO_ID), BY_BOTH),
        ]
        if any(waits):
            raise TooManyAttempts(max(waits))

    async def _count(self, place: Place, most: int) -> int:
        """Seconds to wait; 0 where there was room."""
        try:
            await self._attempts.take([Limit(f"inbound:{place[1]}:{place[0]}", most, WINDOW)])
        except TooManyAttempts as refused:
            seconds = int(refused.args[0])
            self._remember(place, self._now() + seconds)
            return seconds
        return 0

    def _remember(self, place: Place, until: float) -> None:
        self._refused[place] = until
        self._refused.move_to_end(place)
        if len(self._refused) > BOUND:
            self._refused.popitem(last=False)

    async def _exists(self, channel: str | None) -> bool:
        """As the last list says, or the next where it is time for one."""
        if channel is None or channel in self._known:
            return channel is not None
        if self._listing is None and self._now() - self._listed >= EVERY:
            self._listed, self._listing = self._now(), asyncio.create_task(self._list())
        if self._listing is not None:
            await asyncio.wait((self._listing,), timeout=PATIENCE)
        return channel in self._known

    async def _list(self) -> None:
        try:
            self._known = frozenset(await self._existing())
        except BrainError as error:
            log.warning("the channels that exist are those of the last list: %s", error)
        finally:
            self._listing = None
