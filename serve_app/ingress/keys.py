"""Who calls: API keys, looked up in Postgres and remembered for a while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256

from domain.errors import Unavailable
from domain.tenant import Caller

FRESH, ABSENT = 30.0, 2.0  # seconds that a found and an unknown key are believed
STALE = 900.0  # seconds that a found key is believed while the database is down
BOUND = 10_000


class Keys:
    """`find` answers the caller of a key, or None. Known keys outlive an outage of the database for `STALE` seconds."""

    def __init__(
        self, find: Callable[[str], Awaitable[Caller | None]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._find, self._now = find, now
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}

    async def caller(self, api_key: str) -> Caller | None:
        """Raises `Unavailable` where the key is not known and the database does not answer."""
        digest = sha256(api_key.encode()).digest()
        now = self._now()
        known = self._known.get(digest)
        if known is not None and now - known[0] < FRESH:
            self._known.move_to_end(digest)
            return known[1]
        if now - self._unknown.get(digest, -ABSENT) < ABSENT:
            return None
        asked = self._asked.get(digest)
        if asked is None:
            asked = asyncio.create_task(self._look_up(digest, api_key))
            self._asked[digest] = asked
            asked.add_done_callback(lambda _: self._asked.pop(digest, None))
        try:
            return await asyncio.shield(asked)
        except Unavailable:
            if known is not None and now - known[0] < STALE:
                return known[1]
            raise

    async def _look_up(self, digest: bytes, api_key: str) -> Caller | None:
        caller = await self._find(api_key)
        if caller is None:
            self._known.pop(digest, None)
            self._unknown[digest] = self._now()
            if len(self._unknown) > BOUND:
                self._unknown.popitem(last=False)
        else:
            self._unknown.pop(digest, None)
            self._known[digest] = (self._now(), caller)
            self._known.move_to_end(digest)
            if len(self._known) > BOUND:
                self._known.popitem(last=False)
        return caller
