"""Money for calls of providers that belong to no stored turn (`domain.ports.Ledger`), and the ledger's sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import asyncpg

from domain.errors import BudgetExceeded, Unavailable
from domain.ledger import Charge
from storage import rows
from storage.postgres import Pool, asking, call
from storage.retry import again

GROUPS = ("day", "tenant", "user", "model", "provider", "basis", "why")
SUMS = ("calls", "turns", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "unpriced_calls")
_SLOWEST = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """From `start` up to before `end`; of one tenant, or of all; summed by `group_by`, some of `GROUPS`."""

    start: datetime
    end: datetime
    group_by: tuple[str, ...]
    tenant: str | None = None


class PostgresLedger:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve(self, tenant: str, turn_id: str, usd: Decimal | None, seconds: float) -> None:
        sql = "SELECT brain.reserve($1, $2, $3, $4)"
        if not (await call(self._pool, sql, tenant, turn_id, usd, timedelta(seconds=seconds)))[0]:
            raise BudgetExceeded()

    async def settle(
        self,
        tenant: str,
        turn_id: str,
        calls: Sequence[Charge],
        *,
        attempt: int = 1,
        user_id: str | None = None,
        caller: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        await call(
            self._pool,
            "SELECT brain.settle($1, $2, $3, $4, $5, $6, $7)",
            tenant,
            turn_id,
            attempt,
            conversation_id,
            user_id,
            caller,
            rows.calls(calls),
        )

    @again
    async def usage(self, query: UsageQuery, limit: int) -> tuple[list[asyncpg.Record], asyncpg.Record | None]:
        """At most `limit` groups (columns `GROUPS` and `SUMS`) in the order of `GROUPS`, and the sum of all.

        The sum is None where there is no call. It crosses tenants: its caller must be the operator.
        """
        sql = "SELECT * FROM brain.usage_totals($1, $2, $3, $4, $5)"
        span = (query.start, query.end, query.tenant)
        async with asking(self._pool) as lent:
            try:
                async with lent.transaction(isolation="repeatable_read", readonly=True):
                    groups = await lent.fetch(sql, *span, list(query.group_by), limit, timeout=_SLOWEST)
                    total = await lent.fetchrow(sql, *span, [], 1, timeout=_SLOWEST)
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise Unavailable("the ledger cannot be read now") from error
        return groups, total
