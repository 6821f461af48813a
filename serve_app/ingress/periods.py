"""Periods that a query names with `from` and `to`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query

from serve_app.ingress.errors import Problem
from serve_app.ingress.params import Written

USUAL, LONGEST = timedelta(days=7), timedelta(days=366)
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Moment = Annotated[
    datetime | None, Written, Query(alias="from", description="RFC 3339; seven days before `to` if not given")
]
End = Annotated[datetime | None, Written, Query(alias="to", description="RFC 3339; now if not given")]


def period(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    until = _utc("to", until or datetime.now(UTC))
    since = _utc("from", since or until - USUAL)
    if not since < until <= since + LONGEST:
        raise Problem(422, f"from: must be before `to`, by {LONGEST.days} days at the most", "from")
    return since, until


def _utc(name: str, at: datetime) -> datetime:
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not EARLIEST <= at <= LATEST:
        raise Problem(422, f"{name}: must lie between {EARLIEST.year} and {LATEST.year}", name)
    return at.astimezone(UTC)
