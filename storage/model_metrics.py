"""What a tenant used of one model in a period: from the ledger's calls, and from its turns with their traces."""

from datetime import datetime, timedelta
from typing import Any

from storage.postgres import Pool, reading

_SKEW = timedelta(hours=1)  # between the clocks that make ids and the database's
_ERRORS = 10

# The day's index narrows the ledger down, and the ids of turns, which begin with their time, the turns.
_CHARGED = """
SELECT count(*) AS total, count(*) FILTER (WHERE conversation_id IS NULL) AS unkept,
    count(*) FILTER (WHERE estimated) AS estimated,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens, coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint AS total_tokens,
    sum(cost_usd)::double precision AS cost_usd
FROM brain.usage WHERE tenant_id = $1 AND model = $2 AND created_at >= $3 AND created_at < $4
    AND day BETWEEN ($3::timestamptz AT TIME ZONE 'UTC')::date AND ($4::timestamptz AT TIME ZONE 'UTC')::date
"""
_PERIOD = "tenant_id = $1 AND created_at >= $3 AND created_at < $4 AND id >= $5 AND id < $6"
_TURNS = f"""
SELECT count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled, count(*) AS total,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - created_at)
        ::double precision * 1000) FILTER (WHERE status = 'completed') AS took
FROM brain.turns WHERE {_PERIOD} AND model = $2 AND completed_at IS NOT NULL
"""
_CALLS = f"""
WITH calls AS (
    SELECT a->>'status' AS status, a->>'error' AS error, (a->>'first_token_ms')::double precision AS first,
        (a->>'total_ms')::double precision AS took
    FROM brain.turns, jsonb_array_elements(
        CASE jsonb_typeof(trace->'attempts') WHEN 'array' THEN trace->'attempts' ELSE '[]' END) a
    WHERE {_PERIOD} AND completed_at IS NOT NULL AND a->>'model' = $2
)
SELECT count(*) FILTER (WHERE status = 'ok') AS ok, count(*) FILTER (WHERE status = 'error') AS error,
    count(*) AS total,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY took) FILTER (WHERE status = 'ok') AS took,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY first) FILTER (WHERE status = 'ok') AS first,
    (SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.count DESC, e.message), '[]') FROM (
        SELECT left(coalesce(error, ''), 300) AS message, count(*) AS count FROM calls WHERE status = 'error'
            GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_ERRORS}) e) AS errors
FROM calls
"""


class ModelMetrics:
    _pool: Pool

    async def model_metrics(self, tenant: str, model: str, since: datetime, until: datetime) -> dict[str, Any]:
        """Turns that the model answered, by status; its calls in all turns, with latencies in milliseconds; tokens and
        USD of all calls in the ledger, also of completions that nobody keeps."""
        bounds = (first_id(since - _SKEW), first_id(until + _SKEW))
        async with reading(self._pool, tenant) as lent:
            charged = await lent.fetchrow(_CHARGED, tenant, model, since, until)
            turns = await lent.fetchrow(_TURNS, tenant, model, since, until, *bounds)
            calls = await lent.fetchrow(_CALLS, tenant, model, since, until, *bounds)
        assert charged is not None
        assert turns is not None
        assert calls is not None
        return {
            "turns": {name: turns[name] for name in ("completed", "failed", "cancelled", "total")},
            "calls": {
                **{name: calls[name] for name in ("ok", "error", "total")},
                "charged": charged["total"],
                "unkept": charged["unkept"],
                "estimated": charged["estimated"],
            },
            "usage": {
                name: charged[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens")
            },
            "cost_usd": charged["cost_usd"],
            "latency_ms": {
                "turn": _distribution(turns["took"]),
                "call": _distribution(calls["took"]),
                "first_token": _distribution(calls["first"]),
            },
            "errors": calls["errors"],
        }


def first_id(at: datetime) -> str:
    """The least id of a turn that can have been made at `at` (domain/ids.py)."""
    return f"turn_{max(int(at.timestamp() * 1000), 0):012x}{'0' * 20}"


def _distribution(percentiles: list[float] | None) -> dict[str, float | None]:
    p50, p95 = percentiles or (None, None)
    return {"p50": p50, "p95": p95}
