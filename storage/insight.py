"""A conversation as a whole: its figures, and its export."""

from collections.abc import AsyncIterator
from typing import Any

from domain.errors import NotFound
from domain.message import Message
from storage import rows
from storage.postgres import Pool, reading
from storage.retry import again

EXPORT_PAGE = 200  # messages held in memory at once

_TURNS = """
SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running,
    count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled, count(*) AS total,
    sum(cost_usd) AS cost_usd,
    coalesce(sum((usage->>'prompt_tokens')::bigint), 0)::bigint AS prompt_tokens,
    coalesce(sum((usage->>'cached_tokens')::bigint), 0)::bigint AS cached_tokens,
    coalesce(sum((usage->>'completion_tokens')::bigint), 0)::bigint AS completion_tokens,
    coalesce(sum((usage->>'total_tokens')::bigint), 0)::bigint AS total_tokens,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY took) AS took, avg(took) AS took_mean,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY first) AS first, avg(first) AS first_mean
FROM (SELECT status, cost_usd, usage,
        extract(epoch FROM completed_at - created_at)::double precision * 1000 AS took,
        CASE jsonb_typeof(trace->'timings_ms'->'first_token')
            WHEN 'number' THEN (trace->'timings_ms'->>'first_token')::double precision END AS first
    FROM brain.turns WHERE tenant_id = $1 AND conversation_id = $2) t
"""
_MESSAGES = """
SELECT count(*) FILTER (WHERE role = 'user') AS user, count(*) FILTER (WHERE role = 'assistant') AS assistant,
    count(*) AS total FROM brain.messages WHERE tenant_id = $1 AND conversation_id = $2
"""


class Insight:
    _pool: Pool

    @again
    async def conversation_metrics(self, tenant: str, conversation_id: str) -> dict[str, Any]:
        """Turns by status, messages by role, tokens, cost, and latencies in milliseconds. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.conversations WHERE tenant_id = $1 AND id = $2)",
                tenant,
                conversation_id,
            ):
                raise NotFound("there is no such conversation")
            turns = await lent.fetchrow(_TURNS, tenant, conversation_id)
            messages = await lent.fetchrow(_MESSAGES, tenant, conversation_id)
        assert turns is not None
        assert messages is not None
        return {
            "object": "conversation.metrics",
            "conversation_id": conversation_id,
            "turns": {name: turns[name] for name in ("queued", "running", "completed", "failed", "cancelled", "total")},
            "messages": dict(messages),
            "usage": {
                name: turns[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens")
            },
            "cost_usd": turns["cost_usd"],
            "latency_ms": {
                "turn": _distribution(turns["took"], turns["took_mean"]),
                "first_token": _distribution(turns["first"], turns["first_mean"]),
            },
        }

    async def export(self, tenant: str, conversation_id: str) -> AsyncIterator[list[Message]]:
        """All messages in the order of `seq`, a page at a time."""
        seq = 0
        while page := await self._after(tenant, conversation_id, seq):
            yield page
            if len(page) < EXPORT_PAGE:
                return
            seq = page[-1].seq

    @again
    async def _after(self, tenant: str, conversation_id: str, seq: int) -> list[Message]:
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES}"
                " WHERE m.tenant_id = $1 AND m.conversation_id = $2 AND m.seq > $3 ORDER BY m.seq LIMIT $4",
                tenant,
                conversation_id,
                seq,
                EXPORT_PAGE,
            )
        return [rows.message(row) for row in found]


def _distribution(percentiles: list[float] | None, mean: float | None) -> dict[str, float | None]:
    p50, p95 = percentiles or (None, None)
    return {"p50": p50, "p95": p95, "mean": mean}
