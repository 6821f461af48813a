"""Which hosts are alive (`domain.ports.Leases`). A lease is a row that its host renews."""

from datetime import timedelta

from domain.conversation import ConversationKey
from storage.postgres import Pool, asking, call


class PostgresLeases:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def renew(self, host: str) -> None:
        """Also ends leases that begin in the future: the clock was set back, and nobody could tell a dead host's."""
        await call(
            self._pool,
            "WITH ahead AS (DELETE FROM brain.hosts WHERE id <> $1 AND renewed_at > clock_timestamp())"
            " INSERT INTO brain.hosts AS h (id, renewed_at) VALUES ($1, clock_timestamp())"
            " ON CONFLICT (id) DO UPDATE SET renewed_at = excluded.renewed_at",
            host,
        )

    async def release(self, host: str) -> None:
        await call(self._pool, "DELETE FROM brain.hosts WHERE id = $1", host)

    async def orphans(self, lease: float, limit: int) -> list[ConversationKey]:
        async with asking(self._pool) as lent:
            found = await lent.fetch("SELECT * FROM brain.orphans($1, $2)", timedelta(seconds=lease), limit)
        return [ConversationKey(row["tenant_id"], row["conversation_id"]) for row in found]

    async def unfinished(self, host: str, age: float) -> list[tuple[ConversationKey, str]]:
        async with asking(self._pool) as lent:
            found = await lent.fetch("SELECT * FROM brain.unfinished_of($1, $2, 1000)", host, timedelta(seconds=age))
        return [(ConversationKey(row["tenant_id"], row["conversation_id"]), row["turn_id"]) for row in found]

    async def prune(self) -> None:
        """Remove idempotency keys past their time, delivered outbox rows, changes of access that all have heard of, and
        leases of hosts long gone; give back what completions held whose process is gone."""
        while (await call(self._pool, "SELECT brain.prune()"))[0]:
            continue
        while (await call(self._pool, "SELECT brain.prune_access()"))[0]:
            continue
        await call(self._pool, "SELECT brain.expire_reservations()")
        await call(self._pool, "DELETE FROM brain.hosts WHERE renewed_at < now() - interval '1 hour'")
