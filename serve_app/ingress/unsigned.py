"""Requests to channels that no channel signed: few from one address, and then none of them costs any work.

A request that is signed takes nothing. One that is not is counted like a failed sign-in, for all replicas; who is over
the bound is refused by this replica's memory alone. That stops nobody's channel from elsewhere, nor, behind one
address, the channels that this replica knows to sign there: many services may share it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from storage.attempts import Attempts, Limit, TooManyAttempts

WINDOW = 300.0  # seconds in which unsigned requests are counted
BY_BOTH, BY_ADDRESS = 30, 300  # of them in it, to one channel from one address, and from one address
BOUND = 10_000  # of addresses, and of channels with an address, that are remembered

Place = tuple[str, str]
V = TypeVar("V")


class Unsigned:
    """`address`: as `Visit.network`. `channel`: an id that a path names, of a channel or of none."""

    def __init__(self, attempts: Attempts, now: Callable[[], float] = time.monotonic) -> None:
        self._attempts, self._now = attempts, now
        self._refused: OrderedDict[Place, float] = OrderedDict()  # until when; "" for all channels
        self._signing: OrderedDict[Place, None] = OrderedDict()

    def check(self, address: str, channel: str) -> None:
        """Before any work. Raises `TooManyAttempts`."""
        place, now = (address, channel), self._now()
        until = self._refused.get(place, now)
        if place not in self._signing:
            until = max(until, self._refused.get((address, ""), now))
        if until > now:
            raise TooManyAttempts(int(until - now) + 1)

    def signed(self, address: str, channel: str) -> None:
        _remember(self._signing, (address, channel), None)

    async def failed(self, address: str, channel: str) -> None:
        """Count one; of no channel as of one, so that nobody learns here which there are. Raises `TooManyAttempts`
        where that is one too many."""
        await self._count((address, channel), BY_BOTH)
        await self._count((address, ""), BY_ADDRESS)

    async def _count(self, place: Place, most: int) -> None:
        try:
            await self._attempts.take([Limit(f"inbound:{place[1]}:{place[0]}", most, WINDOW)])
        except TooManyAttempts as refused:
            _remember(self._refused, place, self._now() + float(refused.args[0]))
            raise


def _remember(places: OrderedDict[Place, V], place: Place, value: V) -> None:
    places[place] = value
    places.move_to_end(place)
    if len(places) > BOUND:
        places.popitem(last=False)
