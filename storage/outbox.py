"""The outbox for one of its consumers (`domain.indexing.Outbox`): claims that a lease ends, and confirmations.

Ids are committed out of order, so no consumer remembers one: it asks for what it has not confirmed.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from domain.indexing import Claim, Lag, OutboxEvent
from storage.postgres import Pool, asking, call, reading


@dataclass(frozen=True, slots=True)
class OutboxSize:
    """`bytes`: with indexes. `seconds`: the age of the oldest row; rows are kept for a day, if no consumer waits."""

    bytes: int
    seconds: float


class PostgresOutbox:
    """`consumer`: one that a migration has registered, with an index of its rows.

    `lease`: seconds that a claim holds. `share`: rows of one tenant in a claim. A row that failed `most` times is set
    aside; it is tried again after `pause` seconds, and each time twice as late.
    """

    def __init__(
        self, pool: Pool, consumer: str, *, lease: float = 60, share: int = 64, most: int = 8, pause: float = 1.0
    ) -> None:
        self._pool, self._consumer, self._holder = pool, consumer, str(uuid.uuid4())
        self._lease, self._share, self._most, self._pause = lease, share, most, pause
        self._after = ""  # the tenant whose turn was the last

    async def claim(self, generation: int, limit: int) -> list[Claim]:
        async with asking(self._pool) as lent:
            rows = await lent.fetch(
                "SELECT * FROM brain.claim_outbox($1, $2, $3, $4, $5, $6, $7)",
                self._consumer,
                generation,
                self._holder,
                timedelta(seconds=self._lease),
                self._after,
                self._share,
                limit,
            )
        claims = [Claim(row["tenant_id"], row["id"], row["delivery"]) for row in rows]
        self._after = claims[-1].tenant if claims else ""
        return claims

    async def read(self, tenant: str, claims: Sequence[Claim]) -> list[OutboxEvent]:
        deliveries = {claim.id: claim.delivery for claim in claims}
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT id, topic, payload FROM brain.outbox WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id",
                tenant,
                list(deliveries),
            )
        return [OutboxEvent(row["id"], row["topic"], row["payload"], deliveries[row["id"]]) for row in rows]

    async def confirm(self, generation: int, ids: Sequence[int]) -> int:
        row = await call(
            self._pool,
            "SELECT brain.confirm_outbox($1, $2, $3, $4)",
            self._consumer,
            generation,
            self._holder,
            list(ids),
        )
        return int(row[0])

    async def fail(self, ids: Sequence[int], error: str) -> int:
        row = await call(
            self._pool,
            "SELECT brain.fail_outbox($1, $2, $3, $4, $5, $6)",
            self._consumer,
            self._holder,
            list(ids),
            error.replace("\0", ""),
            self._most,
            timedelta(seconds=self._pause),
        )
        return int(row[0])

    async def release(self, ids: Sequence[int]) -> None:
        await call(self._pool, "SELECT brain.release_outbox($1, $2, $3)", self._consumer, self._holder, list(ids))

    async def lag(self) -> Lag:
        async with asking(self._pool) as lent:
            row = await lent.fetchrow("SELECT * FROM brain.outbox_lag($1)", self._consumer)
        assert row is not None
        return Lag(row["waiting"], row["seconds"], row["set_aside"])

    async def size(self) -> OutboxSize:
        async with asking(self._pool) as lent:
            row = await lent.fetchrow("SELECT * FROM brain.outbox_size()")
        assert row is not None
        return OutboxSize(row["bytes"], row["seconds"])
