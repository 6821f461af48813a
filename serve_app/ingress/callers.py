"""Who calls: API keys and access tokens, looked up once and remembered until something says that they count no more.

A replica looks at what changed of access several times a second (`AccessWatch`). While it may believe that it has heard
of all (`current`), what is remembered needs no look at anything. While it has not, an access token is checked anew at
each request, and refused where that cannot be done; a known key outlives an outage of the database, in which nobody can
revoke it, for `STALE` seconds.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256

from domain.caching import CacheStatistics
from domain.errors import Unavailable
from domain.tenant import Caller
from storage.access import AccessChange

FRESH, ABSENT = 30.0, 2.0  # seconds that a found and an unknown credential are believed
STALE = 900.0  # seconds that a found key is believed while the database is down
BOUND = 10_000

Find = Callable[[str], Awaitable[Caller | None]]


async def nobody(_: str) -> None:
    """`Find` of a service that knows no such credentials."""
    return


class Callers:
    """`find_key`, `find_token`: the caller of a credential, or None; they may raise `Unavailable`."""

    shared = False

    def __init__(
        self,
        find_key: Find,
        find_token: Find = nobody,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._find_key, self._find_token = find_key, find_token
        self._now, self._clock = now, clock
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._changes = 0
        self._hits = self._misses = self._evicted = 0
        self.current: Callable[[], bool] = lambda: True

    async def caller(self, credential: str) -> Caller | None:
        """Raises `Unavailable` where the credential is not known and cannot be looked up."""
        digest = sha256(credential.encode()).digest()
        now = self._now()
        known = self._known.get(digest)
        if known is not None and self._ended(known[1]):
            del self._known[digest]
            return None
        if known is not None and now - known[0] < FRESH and self.current():
            self._known.move_to_end(digest)
            self._hits += 1
            return known[1]
        self._misses += 1
        if now - self._unknown.get(digest, -ABSENT) < ABSENT:
            return None
        asked = self._asked.get(digest)
        if asked is None:
            asked = asyncio.create_task(self._look_up(digest, credential))
            self._asked[digest] = asked
            asked.add_done_callback(lambda _: self._asked.pop(digest, None))
        try:
            return await asyncio.shield(asked)
        except Unavailable:
            if known is not None and known[1].token is None and now - known[0] < STALE:
                return known[1]
            raise

    def forget(self, changes: list[AccessChange] | None) -> None:
        """Believe no more what these changes concern; all of it where they are not known."""
        self._changes += 1
        if changes is None:
            self._known.clear()
            self._unknown.clear()
            return
        for digest, (_, caller) in list(self._known.items()):
            if any(concerns(change, caller) for change in changes):
                del self._known[digest]

    @property
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._evicted, len(self._known), BOUND)

    async def flush(self) -> None:
        self.forget(None)

    def _ended(self, caller: Caller) -> bool:
        return caller.expires_at is not None and caller.expires_at <= self._clock()

    async def _look_up(self, digest: bytes, credential: str) -> Caller | None:
        changes, asked_at = self._changes, self._now()
        find = self._find_token if is_token(credential) else self._find_key
        caller = await find(credential)
        if caller is None:
            self._known.pop(digest, None)
            self._unknown[digest] = asked_at
            if len(self._unknown) > BOUND:
                self._unknown.popitem(last=False)
        elif changes == self._changes:  # else this may be from before a change: believed for this request alone
            self._unknown.pop(digest, None)
            self._known[digest] = (asked_at, caller)
            self._known.move_to_end(digest)
            if len(self._known) > BOUND:
                self._known.popitem(last=False)
                self._evicted += 1
        return caller


def is_token(credential: str) -> bool:
    """Whether it has the shape of a JSON Web Token (RFC 7519), and not that of a key."""
    return credential.count(".") == 2 and credential.startswith("eyJ")


def concerns(change: AccessChange, caller: Caller) -> bool:
    """Whether what changed may change who this caller is, or what it may do."""
    if change.tenant != caller.tenant:
        return False
    if change.kind == "tenant":
        return True
    if change.kind == "role":
        return change.subject == caller.role
    named = {"key": caller.key_id, "user": caller.user, "token": caller.token}.get(change.kind)
    return named == change.subject or (change.kind == "token" and caller.session == change.subject)
