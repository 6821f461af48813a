"""What the relay needs of Postgres: the lease by which one works at a time, and the outbox's rows in their order."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.cloud_events import Fact
from storage.postgres import Pool, asking, call, reading


@dataclass(frozen=True, slots=True)
class Term:
    """The right to work. `epoch` is greater than any of before; `marker` and `position` are what Redis must have,
    unless it lost data; `again_after`: rows behind this one are being published again."""

    epoch: int
    marker: str
    position: int
    again_after: int | None


@dataclass(frozen=True, slots=True)
class RelayLag:
    """`waiting`: rows (100,000 stand for any more); `seconds`: the age of the oldest."""

    waiting: int
    seconds: float


class PostgresEventLog:
    """`lease`: seconds that a term lasts unless it is renewed. Methods raise `Unavailable`, and with an epoch that is
    over `Fenced`."""

    def __init__(self, pool: Pool, lease: float = 3.0) -> None:
        self._pool, self.lease, self.holder = pool, lease, str(uuid.uuid4())

    async def term(self) -> Term | None:
        """Take or renew the right to work; None where another relay has it."""
        row = await call(
            self._pool, "SELECT * FROM brain.relay_lease($1, $2)", self.holder, timedelta(seconds=self.lease)
        )
        if row["epoch"] is None:
            return None
        return Term(row["epoch"], str(row["marker"]), row["position"], row["again_after"])

    async def release(self) -> None:
        """Another relay may begin at once."""
        await call(self._pool, "SELECT brain.relay_release($1)", self.holder)

    async def take(
        self, epoch: int, done: Sequence[int], position: int, limit: int, without: Sequence[int] = ()
    ) -> list[Fact]:
        """Confirm `done`, which Redis has since its `position`; what waits, in an order that keeps each conversation's,
        without these rows."""
        async with asking(self._pool) as lent:
            rows = await lent.fetch(
                "SELECT * FROM brain.relay_take($1, $2, $3, $4, $5)", epoch, list(done), position, list(without), limit
            )
        return [Fact(*row) for row in rows]

    async def lost(self, epoch: int, since: float) -> str:
        """Redis has lost its data: confirmed rows of the last `since` seconds are to be told again. The new marker."""
        row = await call(self._pool, "SELECT brain.relay_lost($1, $2)", epoch, timedelta(seconds=since))
        return str(row[0])

    async def again(self, epoch: int, after: int, position: int, limit: int) -> list[Fact]:
        """Rows to be published again; those up to `after` have been. With a `limit` of 0 all have."""
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT * FROM brain.relay_again($1, $2, $3, $4)", epoch, after, position, limit)
        return [Fact(*row) for row in rows]

    async def lag(self) -> RelayLag:
        async with asking(self._pool) as lent:
            row = await lent.fetchrow("SELECT * FROM brain.relay_lag()")
        assert row is not None
        return RelayLag(row["waiting"], row["seconds"])


class KeptEvents:
    """The rows of a tenant that the outbox still has. Methods raise `Unavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def moment(self, tenant: str, row: int) -> datetime | None:
        """When this row was written; None where nobody keeps it any more."""
        async with reading(self._pool, tenant) as lent:
            found: datetime | None = await lent.fetchval(
                "SELECT created_at FROM brain.outbox WHERE tenant_id = $1 AND id = $2", tenant, row
            )
            return found

    async def since(self, tenant: str, moment: datetime, after: int, limit: int) -> list[Fact]:
        """Rows from a moment on, behind the row `after`, by their ids."""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch("SELECT * FROM brain.events_kept($1, $2, $3)", moment, after, limit)
        return [Fact(row["id"], tenant, row["topic"], row["payload"], row["created_at"]) for row in rows]

    async def whole_since(self, tenant: str, moment: datetime) -> bool:
        """Whether the outbox surely has every row from `moment` on: it keeps them for a day at least."""
        async with reading(self._pool, tenant) as lent:
            return bool(
                await lent.fetchval(
                    "SELECT $2 > clock_timestamp() - interval '1 day' OR EXISTS"
                    " (SELECT FROM brain.outbox WHERE tenant_id = $1 AND created_at <= $2)",
                    tenant,
                    moment,
                )
            )

    async def owner(self, tenant: str, conversation: str) -> str | None:
        """The user whose conversation it is; None where it is nobody's, or gone."""
        async with reading(self._pool, tenant) as lent:
            found: str | None = await lent.fetchval(
                "SELECT user_id FROM brain.conversations WHERE tenant_id = $1 AND id = $2", tenant, conversation
            )
            return found


async def tell_limit(pool: Pool, tenant: str, limit: str, value: int) -> None:
    """That requests of a tenant are refused, as `tenant_requests` or `user_tokens`: once a minute."""
    async with reading(pool, tenant) as lent:
        await lent.execute("SELECT brain.tell_limit($1, $2)", limit, value)
