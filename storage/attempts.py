"""How often something was tried lately: sign-ins by account and by address, counted in Redis for all replicas.

An attempt is counted before it is made, so that many at once are not too many. While Redis is away each replica counts
its own.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.errors import BrainError

log = logging.getLogger("brain.access")
BOUND = 50_000  # counters that a replica keeps by itself

_TAKE = """
local wait = 0
for i, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[2 * i - 1]) then
        wait = math.max(wait, redis.call('PTTL', key), 1)
    end
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
    if redis.call('INCR', key) == 1 then redis.call('PEXPIRE', key, ARGV[2 * i]) end
end
return 0
"""
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
    if ARGV[i] == 'all' then redis.call('DEL', key)
    elseif tonumber(redis.call('GET', key) or '0') > 0 then redis.call('DECR', key) end
end
return 0
"""


class TooManyAttempts(BrainError):
    """Too many attempts; try again later."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_attempts"

    def __init__(self, seconds: int = 1) -> None:
        super().__init__(seconds)
        self.headers = {"retry-after": str(seconds)}

    def __str__(self) -> str:
        return f"too many attempts: try again in {self.args[0]} s"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` of what `name` names within `seconds` from the first one on. `clears`: a success forgets all of
    its attempts, else its own."""

    name: str
    most: int
    seconds: float
    clears: bool = False


class Attempts:
    def __init__(self, redis: Redis | None, now: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._now = redis, now
        self._own: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def take(self, limits: Sequence[Limit]) -> None:
        """Count one attempt under each limit. Raises `TooManyAttempts`, and then counts none."""
        args: list[Any] = [value for one in limits for value in (one.most, int(one.seconds * 1000))]
        wait = await self._ask(_TAKE, limits, args)
        seconds = self._take(limits) if wait is None else wait / 1000
        if seconds > 0:
            raise TooManyAttempts(int(seconds) + 1)

    async def succeeded(self, limits: Sequence[Limit]) -> None:
        """What was taken for an attempt that succeeded is given back."""
        if await self._ask(_GIVE_BACK, limits, ["all" if one.clears else "one" for one in limits]) is not None:
            return
        for one in limits:
            count, until = self._own.pop(one.name, (0, 0.0))
            if count > 1 and not one.clears:
                self._own[one.name] = (count - 1, until)

    async def _ask(self, script: str, limits: Sequence[Limit], args: list[Any]) -> float | None:
        """None where Redis cannot say."""
        if self._redis is None:
            return None
        try:
            asking: Any = self._redis.eval(
                script, len(limits), *(f"brain:attempts:{one.name}" for one in limits), *args
            )
            return float(await asking)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("attempts are counted in this replica alone: Redis is away (%s)", type(error).__name__)
            return None

    def _take(self, limits: Sequence[Limit]) -> float:
        now = self._now()
        found = {one.name: self._own.get(one.name, (0, 0.0)) for one in limits}
        full = [found[one.name][1] - now for one in limits if found[one.name][0] >= one.most]
        if (wait := max(full, default=0.0)) > 0:
            return wait
        for one in limits:
            count, until = found[one.name]
            self._own[one.name] = (count + 1, until) if until > now else (1, now + one.seconds)
            self._own.move_to_end(one.name)
        while len(self._own) > BOUND:
            self._own.popitem(last=False)
        return 0.0
