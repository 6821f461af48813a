"""What was spent: the ledger's sums for the operator, as JSON and as CSV."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsAllUsage
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import text
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import rfc3339
from storage.ledger import GROUPS, UsageQuery
from storage.rows import Row

router = APIRouter(prefix="/api/v1/admin/usage", tags=["administration"])

MOST = 50_000  # groups in one answer
_PIECE = 500  # lines of CSV written at once
_NAMES = {"tenant": "tenant_id", "user": "user_id"}
_DAY = re.compile(r"^\d{4}-\d\d-\d\d$")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class UsageTotals(BaseModel):
    """Sums. `cost_usd` is exact and leaves `unpriced_calls` out; `turns` counts those that have a call here."""

    calls: int
    turns: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float
    unpriced_calls: int


class UsageGroup(UsageTotals):
    """Sums of one group; it has those of the following fields that `group_by` named."""

    day: date | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    provider: str | None = None
    basis: Literal["reported", "estimated"] | None = None
    why: str | None = None


class UsageList(BaseModel):
    object: Literal["list"] = "list"
    data: list[UsageGroup]
    totals: UsageTotals
    start: datetime
    end: datetime
    group_by: list[str]
    first_id: None = None
    last_id: None = None
    has_more: bool = False


@router.get(
    "",
    response_model=None,
    responses={200: {"model": UsageList, "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def usage(
    request: Request,
    who: ReadsAllUsage,
    start: Annotated[str | None, Query(alias="from", description="a day, or a time with its offset")] = None,
    end: Annotated[str | None, Query(alias="to", description="the last day, or the time before which it ends")] = None,
    group_by: Annotated[str, Query(description=f"of {', '.join(GROUPS)}, with commas", max_length=100)] = "day,model",
    tenant_id: Annotated[str | None, Query(max_length=256)] = None,
    format: Literal["json", "csv"] | None = None,
) -> Response:
    """Calls, tokens and cost by group, of all tenants or one: of this month, unless `from` and `to` say otherwise.

    Days are UTC. `basis` tells what providers reported from what was estimated. `Accept: text/csv` asks for CSV.
    """
    query = UsageQuery(*span(start, end, datetime.now(UTC)), _groups(group_by), text("tenant_id", tenant_id))
    groups, total = await parts_of(request).ledger.usage(query, MOST + 1)
    if len(groups) > MOST:
        raise Problem(422, f"more than {MOST} groups: ask for a shorter time or group by less", "group_by")
    names = [name for name in GROUPS if name in query.group_by]
    if (format or _wanted(request)) == "csv":
        return StreamingResponse(_csv(names, groups), media_type="text/csv; charset=utf-8", headers=_file(query))
    return Answer(
        {
            "object": "list",
            "data": [{**_group(names, row), **sums(row)} for row in groups],
            "totals": sums(total or _NOTHING),
            "start": rfc3339(query.start),
            "end": rfc3339(query.end),
            "group_by": names,
            "first_id": None,
            "last_id": None,
            "has_more": False,
        },
        headers={"vary": "accept"},
    )


def span(start: str | None, end: str | None, now: datetime) -> tuple[datetime, datetime]:
    since = (
        _moment("from", start, last=False) if start else now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    )
    try:
        until = _moment("to", end, last=True) if end else max(now, since) + timedelta(minutes=1)
    except OverflowError:
        raise Problem(422, "from: lies too late", "from") from None
    if since >= until:
        raise Problem(422, "from: must lie before `to`", "from")
    return since, until


def _moment(name: str, value: str, last: bool) -> datetime:
    """A day begins at its first moment, and as the last one ends after it."""
    wrong = Problem(422, f"{name}: must be a day (2026-11-30) or a time with its offset (2026-11-30T00:00:00Z)", name)
    try:
        if _DAY.match(value):
            day = datetime.combine(date.fromisoformat(value), time(), UTC)
            return day + timedelta(days=1) if last else day
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise wrong
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None


def _groups(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if unknown := [name for name in names if name not in GROUPS]:
        raise Problem(422, f"group_by: no {unknown[0]!r} here; there are {', '.join(GROUPS)}", "group_by")
    return names


def _wanted(request: Request) -> str:
    accepted = [kind.split(";")[0].strip() for kind in request.headers.get("accept", "").split(",")]
    return "csv" if "text/csv" in accepted and "application/json" not in accepted else "json"


_NOTHING: dict[str, Any] = {
    "calls": 0,
    "turns": 0,
    "prompt_tokens": 0,
    "cached_tokens": 0,
    "completion_tokens": 0,
    "cost_usd": Decimal(),
    "unpriced_calls": 0,
}


def _group(names: list[str], row: Row) -> dict[str, Any]:
    return {_NAMES.get(name, name): row[name] for name in names}


def sums(row: Row) -> dict[str, Any]:
    return {
        "calls": row["calls"],
        "turns": row["turns"],
        "prompt_tokens": row["prompt_tokens"],
        "cached_tokens": row["cached_tokens"],
        "completion_tokens": row["completion_tokens"],
        "total_tokens": row["prompt_tokens"] + row["completion_tokens"],
        "cost_usd": orjson.Fragment(_plain(row["cost_usd"])),  # every digit: a float would round
        "unpriced_calls": row["unpriced_calls"],
    }


def _plain(usd: Decimal) -> str:
    digits = format(usd, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


async def _csv(names: list[str], groups: list[Any]) -> AsyncIterator[bytes]:
    head = [*(_NAMES.get(name, name) for name in names), *sums(_NOTHING)]
    yield (",".join(head) + "\r\n").encode()
    for first in range(0, len(groups), _PIECE):
        yield "".join(_line(names, row) for row in groups[first : first + _PIECE]).encode()


def _line(names: list[str], row: Row) -> str:
    told = {**sums(row), "cost_usd": _plain(row["cost_usd"])}
    return ",".join([*(_cell(row[name]) for name in names), *map(str, told.values())]) + "\r\n"


def _cell(value: Any) -> str:
    """Quoted (RFC 4180). Text that a spreadsheet would run as a formula is led by an apostrophe (OWASP)."""
    told = "" if value is None else str(value)
    if told.startswith(_FORMULA):
        told = "'" + told
    return '"' + told.replace('"', '""') + '"' if told else ""


def _file(query: UsageQuery) -> dict[str, str]:
    name = f"usage-{query.start:%Y%m%d}-{query.end - timedelta(microseconds=1):%Y%m%d}.csv"
    return {"content-disposition": f'attachment; filename="{name}"', "vary": "accept"}
