"""What a user has done and spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.pages import Page, PageQuery, page_of
from storage.postgres import Pool, reading
from storage.retry import again
from storage.rows import Row

RECENT = 200  # conversations, the last that something happened in, whose messages and turns are told
_SUMS = (
    "count(*) AS calls, count(DISTINCT turn_id) AS turns, coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,"
    " coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,"
    " coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens, coalesce(sum(cost_usd), 0) AS cost_usd,"
    " count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_calls"
)
_OF_USER = (
    "brain.usage WHERE tenant_id = $1 AND user_id = $2 AND day BETWEEN ($3::timestamptz AT TIME ZONE 'UTC')::date"
    " AND ($4::timestamptz AT TIME ZONE 'UTC')::date AND created_at >= $3 AND created_at < $4"
)
_ACTIVITY = """
WITH theirs AS MATERIALIZED (
    SELECT id FROM brain.conversations WHERE tenant_id = $1 AND user_id = $2 ORDER BY updated_at DESC LIMIT {recent}
)
SELECT * FROM (
    (SELECT m.id, 'message' AS object, m.conversation_id, m.role, NULL AS status, m.created_at
        FROM theirs JOIN brain.messages m ON m.tenant_id = $1 AND m.conversation_id = theirs.id
        WHERE $3::text IS NULL OR substr(m.id, strpos(m.id, '_')) COLLATE "C" < $3
        ORDER BY substr(m.id, strpos(m.id, '_')) COLLATE "C" DESC LIMIT $4)
    UNION ALL
    (SELECT t.id, 'turn', t.conversation_id, NULL, t.status, t.created_at
        FROM theirs JOIN brain.turns t ON t.tenant_id = $1 AND t.conversation_id = theirs.id
        WHERE $3::text IS NULL OR substr(t.id, strpos(t.id, '_')) COLLATE "C" < $3
        ORDER BY substr(t.id, strpos(t.id, '_')) COLLATE "C" DESC LIMIT $4)
) AS found ORDER BY substr(id, strpos(id, '_')) COLLATE "C" DESC, id DESC LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums of a user's calls of models, by model and in all."""

    by_model: Sequence[Row]
    totals: Row


class PostgresUserActivity:
    """Every method may raise `Unavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def activity(self, tenant: str, user_id: str, query: PageQuery) -> Page[dict[str, Any]]:
        """Messages and turns of the user's conversations, the newest first, by the time that their ids tell."""
        after = None if query.after is None else query.after[query.after.index("_") :]
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(_ACTIVITY.format(recent=RECENT), tenant, user_id, after, query.limit + 1)
        return page_of([dict(row) for row in rows], query)

    @again
    async def spent(self, tenant: str, user_id: str, start: datetime, end: datetime) -> Spent:
        """From `start` up to before `end`."""
        async with reading(self._pool, tenant) as lent:
            by_model = await lent.fetch(
                f"SELECT model, {_SUMS} FROM {_OF_USER} GROUP BY model ORDER BY model", tenant, user_id, start, end
            )
            totals = await lent.fetchrow(f"SELECT {_SUMS} FROM {_OF_USER}", tenant, user_id, start, end)
        assert totals is not None
        return Spent(by_model, totals)

    @again
    async def conversations(self, tenant: str, user_id: str, limit: int) -> list[str]:
        """Some of the user's conversations, for whoever works through them all."""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT id FROM brain.conversations WHERE tenant_id = $1 AND user_id = $2 ORDER BY id LIMIT $3",
                tenant,
                user_id,
                limit,
            )
        return [row["id"] for row in rows]
