"""Recorded choices of `auto`, read in bulk for offline replay by whoever owns the schema."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import psycopg

from domain.message import Usage
from domain.replaying import Decision

PAGE = 500  # rows held in memory at once

_WHERE = """
FROM brain.turns WHERE requested_model = 'auto' AND status = 'completed' AND trace ? 'situation' AND model IS NOT NULL
    AND created_at >= %(since)s AND created_at < %(until)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
"""


def count(url: str, since: datetime, until: datetime, tenant: str | None) -> int:
    """How many decisions there are in the time asked for."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) {_WHERE}", _asked(since, until, tenant)).fetchone()
    return int(row[0]) if row else 0


def read(url: str, since: datetime, until: datetime, tenant: str | None) -> Iterator[Decision]:
    """The decisions in order of time, a page of rows in memory at once."""
    with psycopg.connect(url) as connection, connection.cursor(name="decisions") as cursor:
        cursor.itersize = PAGE
        cursor.execute(
            f"SELECT created_at, model, trace, usage, cost_usd {_WHERE} ORDER BY created_at",
            _asked(since, until, tenant),
        )
        for at, model, trace, usage, cost in cursor:
            yield Decision(
                at=at,
                chosen=trace.get("chosen") or model,
                situation=trace["situation"],
                candidates=trace.get("candidates") or [],
                usage=None if usage is None else Usage.model_validate(usage),
                cost_usd=None if cost is None else Decimal(str(cost)),
            )


def _asked(since: datetime, until: datetime, tenant: str | None) -> dict[str, object]:
    return {"since": since, "until": until, "tenant": tenant}
