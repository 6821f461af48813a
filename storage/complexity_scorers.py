"""Complexity scorers that tenants trained: written by the schema's owner, read by the classifier's replicas."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from storage.postgres import Pool, reading

MOST_EXAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class Example:
    """A question that a model answered, and what was thought of the answer."""

    text: str
    model: str
    score: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A scorer as it is kept: `artefact` was trained with `embedder`'s vectors; `quantiles` give its scores ranks."""

    version: int
    embedder: str
    artefact: bytes
    quantiles: list[float]


async def active(pool: Pool, tenant: str) -> Stored | None:
    """The tenant's scorer; None where it has none. May raise `Unavailable`."""
    async with reading(pool, tenant) as lent:
        row = await lent.fetchrow(
            "SELECT version, embedder, artefact, metrics->'quantiles' AS quantiles"
            " FROM brain.complexity_scorers WHERE tenant_id = $1 AND active",
            tenant,
        )
    return None if row is None else Stored(**{**row, "quantiles": row["quantiles"] or []})


def examples(url: str, tenant: str) -> Iterator[Example]:
    """The tenant's questions whose answers got feedback, the newest first; those of one model alone are told apart by
    `model`."""
    with psycopg.connect(url) as connection:
        yield from (
            Example(*row)
            for row in connection.execute(
                "SELECT q.content, coalesce(a.model, ''), f.score FROM brain.feedback f"
                " JOIN brain.messages a ON a.tenant_id = f.tenant_id AND a.id = f.message_id"
                " JOIN brain.messages q ON q.tenant_id = a.tenant_id AND q.conversation_id = a.conversation_id"
                " AND q.seq = a.turn_order WHERE f.tenant_id = %s ORDER BY f.updated_at DESC LIMIT %s",
                (tenant, MOST_EXAMPLES),
            )
        )


def put(url: str, tenant: str, embedder: str, artefact: bytes, metrics: dict[str, Any]) -> int:
    """Make this the tenant's active scorer; gives its version."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"scorer {tenant}",))
        connection.execute(
            "UPDATE brain.complexity_scorers SET active = false WHERE tenant_id = %s AND active", (tenant,)
        )
        row = connection.execute(
            "INSERT INTO brain.complexity_scorers (tenant_id, version, embedder, artefact, metrics)"
            " SELECT %(t)s, 1 + coalesce(max(version), 0), %(e)s, %(a)s, %(m)s FROM brain.complexity_scorers"
            " WHERE tenant_id = %(t)s RETURNING version",
            {"t": tenant, "e": embedder, "a": artefact, "m": orjson.dumps(metrics).decode()},
        ).fetchone()
    assert row is not None
    return int(row[0])


def activate(url: str, tenant: str, version: int | None) -> bool:
    """Go back to an earlier version, or with None to the scorer that ships; False where there is no such version."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE brain.complexity_scorers SET active = false WHERE tenant_id = %s", (tenant,))
        if version is None:
            return True
        changed = connection.execute(
            "UPDATE brain.complexity_scorers SET active = true WHERE tenant_id = %s AND version = %s",
            (tenant, version),
        )
        if not changed.rowcount:
            connection.rollback()
        return bool(changed.rowcount)
