"""The audit log, and figures of the service as a whole."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from domain.audit import AuditEntry
from domain.errors import NotFound
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.acting import TenantId
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import needs
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import NewestFirst, known, text
from serve_app.ingress.parts import administration_of, parts_of
from serve_app.ingress.periods import EARLIEST, LATEST
from serve_app.ingress.tenant_bodies import AuditList
from storage.audit import AuditFilter

router = APIRouter(prefix="/api/v1/admin", tags=["administration"])

ReadsAudit = Annotated[Caller, needs(Permission.AUDIT_READ)]
Operates = Annotated[Caller, needs(Permission.PLATFORM_OPERATE)]
Words = Annotated[str | None, Query(max_length=256)]
Time = Annotated[datetime | None, Query(description="RFC 3339")]


class Counted(BaseModel):
    """`exact`: counted, not taken from statistics."""

    count: int
    exact: bool


class CountedTurns(Counted):
    by_status: dict[str, int]


class Stats(BaseModel):
    """`hosts`: replicas of the host that are alive. `outbox`: events that some consumer has not confirmed."""

    object: str = "stats"
    version: str
    schema_revision: str
    access_version: int
    tenants: dict[str, int]
    api_keys: Counted
    users: Counted
    conversations: Counted
    messages: Counted
    turns: CountedTurns
    outbox: int
    outbox_set_aside: int
    hosts: int


@router.get("/audit", response_model=None, responses={200: {"model": AuditList}})
async def read_audit(
    request: Request,
    who: ReadsAudit,
    page: NewestFirst,
    tenant_id: TenantId = None,
    action: Words = None,
    subject: Words = None,
    since: Time = None,
    until: Time = None,
) -> Response:
    """Who changed what, newest first: of the tenant, or (the operator) of another one, also of one that is gone."""
    if page.after is not None:
        known(page.after, "aud", "entry")
    if tenant_id not in (None, who.tenant):
        if not who.operator:
            raise NotFound("there is no such tenant")
        who = replace(who, tenant=known(tenant_id or "", "ten", "tenant"))
    wanted = AuditFilter(text("action", action), text("subject", subject), _at("since", since), _at("until", until))
    found = await administration_of(request).audit.page(who.tenant, page, wanted)
    return page_answer(found, _entry_json)


@router.get("/stats", response_model=None, responses={200: {"model": Stats}})
async def read_stats(request: Request, who: Operates) -> Response:
    """Figures of the whole service. Large tables are not counted but estimated: `exact` says which."""
    figures = await administration_of(request).platform.figures()
    figures["schema_revision"] = figures.pop("schema")
    return Answer({"object": "stats", "version": parts_of(request).settings.version, **figures})


def _entry_json(entry: AuditEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def _at(name: str, at: datetime | None) -> datetime | None:
    if at is None:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not EARLIEST <= at <= LATEST:
        raise Problem(422, f"{name}: must lie between {EARLIEST.year} and {LATEST.year}", name)
    return at
