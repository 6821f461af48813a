"""Limits that all replicas share, in Redis: one script takes of all buckets of a request, in one round trip."""

import asyncio
import hashlib
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from domain.errors import JournalRefused
from domain.limits import MOST_OWED, Rule, State, Taken
from storage.wire import Wire

LEASE = 30.0  # seconds that a turn counts after its replica's last word
SECOND = 1_000_000  # of the scripts' microseconds
REPLICAS = "brain:limits:replicas"
_SCRIPTS = {
    name: (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    for name in ("limits", "limits_settle", "limits_renew")
}
_SHA = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()}


class RedisLimits:
    """`domain.ports.RateLimits`. The clock is Redis's own. `lease`: seconds."""

    def __init__(self, redis: Redis, lease: float = LEASE) -> None:
        self._wire = Wire(redis)
        self._lease = int(lease * SECOND)
        self._owed = int(MOST_OWED * SECOND)

    async def take(self, request: str, rules: Sequence[Rule]) -> Taken:
        wanted = [value for rule in rules for value in (rule.kind, rule.limit, rule.cost)]
        buckets = [rule.bucket for rule in rules]
        answer = await self._script("limits", buckets, request, self._lease, self._owed, *wanted)
        states = [State(answer[i], answer[i + 1] / SECOND) for i in range(1, len(answer), 2)]
        return Taken(answer[0] - 1 if answer[0] else None, states)

    async def settle(self, request: str, rules: Sequence[Rule], by: int) -> None:
        await self.settling(request, rules, by)

    def settling(self, request: str, rules: Sequence[Rule], by: int) -> Awaitable[Any]:
        """As `settle`; it is on its way to Redis before the answer is awaited."""
        held = [rule for rule in rules if rule.kind == "turns" or (rule.kind == "tokens" and by)]
        if not held:
            return asyncio.sleep(0)
        wanted = [value for rule in held for value in (rule.kind, rule.limit, by)]
        return self._script("limits_settle", [rule.bucket for rule in held], request, self._owed, *wanted)

    async def renew(self, bucket: str, ids: Sequence[str]) -> int:
        """These count for another lease, also where they were forgotten; gives how many count in all."""
        return int(await self._script("limits_renew", [bucket], self._lease, *ids))

    async def close(self) -> None:
        await self._wire.close()

    def _script(self, name: str, buckets: Sequence[str], *args: Any) -> Awaitable[Any]:
        return self._answer(self._wire.send("EVALSHA", _SHA[name], len(buckets), *buckets, *args), name, buckets, args)

    async def _answer(self, first: Awaitable[Any], name: str, buckets: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            try:
                return await first
            except NoScriptError:
                return await self._wire.send("EVAL", _SCRIPTS[name], len(buckets), *buckets, *args)
        except ResponseError as error:
            raise JournalRefused(str(error)) from error
