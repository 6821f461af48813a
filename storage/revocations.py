"""Access tokens that end before their time: rows in Postgres, told to replicas as changes of access and through Redis.

A replica that hears what changes decides by what it knows, without a round trip. One that does not asks Redis, and
Postgres where Redis is away; where nobody can say, the token is refused.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again

log = logging.getLogger("brain.access")

SLACK = 60.0  # seconds that a revocation is kept beyond the life of what it revokes
RELOAD = 3600.0  # seconds after which what was only heard is read again with its end


async def revoke(lent: Connection, tenant: str, ids: Sequence[str], lifetime: float) -> None:
    """End access tokens by their ids, or by their sessions': part of the transaction that ends them."""
    for one in ids:
        await lent.execute(
            "INSERT INTO brain.revoked_tokens (tenant_id, jti, expires_at)"
            " VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) ON CONFLICT DO NOTHING",
            tenant,
            one,
            lifetime + SLACK,
        )
        await lent.execute("SELECT brain.access_changed($1, 'token', $2)", tenant, one)


class Revocations:
    """`current`: whether what was revoked more than a second ago is known here. `lifetime`: seconds of a token."""

    def __init__(
        self, pool: Pool, redis: Redis | None, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._pool, self._redis, self._lifetime, self._clock = pool, redis, lifetime, clock
        self._known: dict[str, float] = {}
        self._loaded = float("-inf")
        self.current: Callable[[], bool] = lambda: False

    async def load(self) -> None:
        """Read what is revoked, of all tenants: ids and their ends alone."""
        at = self._clock()
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT * FROM brain.revoked_now()")
        self._known = {row["jti"]: row["expires_at"].timestamp() for row in rows}
        self._loaded = at

    async def heard(self, ids: Iterable[str]) -> None:
        until = self._clock() + self._lifetime + SLACK
        self._known |= dict.fromkeys(ids, until)
        if self._clock() - self._loaded > RELOAD:
            await self.load()

    async def revoked(self, tenant: str, ids: Sequence[str]) -> bool:
        """Whether one of these, a token's id and its session's, is revoked. Raises `Unavailable` where nobody knows."""
        if any(one in self._known for one in ids):
            return True
        if self.current():
            return False
        if self._redis is not None:
            try:
                return bool(await self._redis.exists(*(_key(tenant, one) for one in ids)))
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("revocations are looked up in Postgres: Redis is away (%s)", type(error).__name__)
        return await self._in_postgres(tenant, ids)

    async def tell(self, tenant: str, ids: Sequence[str]) -> None:
        """Tell Redis what was revoked; Postgres has it already, so that nothing is lost where Redis is away."""
        self._known |= dict.fromkeys(ids, self._clock() + self._lifetime + SLACK)
        if self._redis is None or not ids:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for one in ids:
                    pipe.set(_key(tenant, one), b"1", ex=int(self._lifetime + SLACK))
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Redis was not told of a revocation: %s", type(error).__name__)

    @again
    async def _in_postgres(self, tenant: str, ids: Sequence[str]) -> bool:
        async with reading(self._pool, tenant) as lent:
            found: bool = await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.revoked_tokens WHERE tenant_id = $1 AND jti = ANY ($2))",
                tenant,
                list(ids),
            )
        return found


def _key(tenant: str, one: str) -> str:
    return f"brain:revoked:{tenant}:{one}"
