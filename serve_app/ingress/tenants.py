"""Tenants: all of them for the operator, and its own for each tenant's administrator."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from domain.errors import NotFound
from domain.ids import new_id
from domain.permissions import Permission
from domain.tenant import Caller, TenantStatus
from domain.tenant_settings import OPERATORS_OWN, TenantSettings
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import Needs, needs
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import administration_of, changed_here
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.tenant_bodies import (
    Removed,
    TenantAnswer,
    TenantCreate,
    TenantList,
    TenantPatch,
    tenant_json,
)
from storage.tenants import NewTenant

admin = APIRouter(prefix="/api/v1/admin/tenants", tags=["administration"])
own = APIRouter(prefix="/api/v1/tenants", tags=["tenants"])

RunsTenants = Annotated[Caller, needs(Permission.PLATFORM_TENANTS)]


class NeedsTenant(Needs):
    """As `Needs`, for the tenant that the path's `tenant_id` names: that of the caller, or, of the operator, any."""

    async def __call__(self, request: Request) -> Caller:
        caller = await super().__call__(request)
        tenant_id = known(request.path_params["tenant_id"], "ten", "tenant")
        if tenant_id == caller.tenant:
            return caller
        if not caller.operator:
            raise NotFound("there is no such tenant")
        await administration_of(request).tenants.one(tenant_id)
        return replace(caller, tenant=tenant_id)


def needs_tenant(permission: Permission) -> Any:
    return Depends(NeedsTenant(permission))


RunsTenant = Annotated[Caller, needs_tenant(Permission.PLATFORM_TENANTS)]
ReadsTenant = Annotated[Caller, needs_tenant(Permission.SETTINGS_READ)]
SetsTenant = Annotated[Caller, needs_tenant(Permission.SETTINGS_MANAGE)]


@admin.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": TenantAnswer}},
    openapi_extra=takes(TenantCreate, creates=True),
)
async def create_tenant(request: Request, who: RunsTenants) -> Response:
    """Make a tenant. Give it a key next: nothing reaches it before."""
    body, key = checked(TenantCreate, await request.body(), strict=True), idempotency_key(request)
    new = NewTenant(new_id("ten"), body.name, body.settings, key, body_hash("tenants", body))
    made, replayed = await administration_of(request).tenants.create(who, new)
    return Answer(tenant_json(made), 201, REPLAYED if replayed else None)


@admin.get("", response_model=None, responses={200: {"model": TenantList}})
async def list_tenants(
    request: Request, who: RunsTenants, page: NewestFirst, status: Annotated[TenantStatus | None, Query()] = None
) -> Response:
    """All tenants, newest first."""
    if page.after is not None:
        known(page.after, "ten", "tenant")
    return page_answer(await administration_of(request).tenants.page(page, status), tenant_json)


@admin.get("/{tenant_id}", response_model=None, responses={200: {"model": TenantAnswer}})
async def get_any_tenant(request: Request, who: RunsTenant, tenant_id: str) -> Response:
    return await _told(request, who)


@admin.patch(
    "/{tenant_id}",
    response_model=None,
    responses={200: {"model": TenantAnswer}},
    openapi_extra=takes(TenantPatch),
)
async def change_any_tenant(request: Request, who: RunsTenant, tenant_id: str) -> Response:
    """Change a tenant's name, status or settings. With a suspended one's keys and tokens nothing is reached; what is
    running ends as it would have."""
    body = _given(checked(TenantPatch, await request.body(), strict=True))
    if body.status == "suspended" and _operators_own(request, who):
        raise Problem(422, "status: the operator's own tenant is not suspended", "status")
    return await _changed(request, who, body)


@admin.delete("/{tenant_id}", response_model=None, responses={200: {"model": Removed}})
async def delete_tenant(request: Request, who: RunsTenant, tenant_id: str) -> Response:
    """Delete a tenant and everything of its. Its audit log stays, for the operator to read."""
    if _operators_own(request, who):
        raise Problem(422, "the operator's own tenant is not deleted", code="own_tenant")
    await administration_of(request).delete(who, tenant_id)
    await changed_here(request)
    return Answer({"id": tenant_id, "object": "tenant", "deleted": True})


@own.get("/{tenant_id}", response_model=None, responses={200: {"model": TenantAnswer}})
async def get_tenant(request: Request, who: ReadsTenant, tenant_id: str) -> Response:
    """The caller's own tenant; the operator may read any."""
    return await _told(request, who)


@own.patch(
    "/{tenant_id}",
    response_model=None,
    responses={200: {"model": TenantAnswer}},
    openapi_extra=takes(TenantPatch),
)
async def change_tenant(request: Request, who: SetsTenant, tenant_id: str) -> Response:
    """Change the tenant's name and those of its settings that are not the operator's to give."""
    body = _given(checked(TenantPatch, await request.body(), strict=True))
    if not who.operator:
        await _check_admin(request, who, body)
    return await _changed(request, who, body)


async def _told(request: Request, who: Caller) -> Response:
    return Answer(tenant_json(await administration_of(request).tenants.one(who.tenant)))


async def _changed(request: Request, who: Caller, body: TenantPatch) -> Response:
    given = body.settings
    change = None if given is None else lambda stored: _merged(stored, given)
    changed = await administration_of(request).tenants.change(who, body.name, body.status, change)
    await changed_here(request)
    return Answer(tenant_json(changed))


def _merged(stored: TenantSettings, given: TenantSettings) -> TenantSettings:
    return stored.merged(given)


def _given(body: TenantPatch) -> TenantPatch:
    if not any(getattr(body, name) is not None for name in body.model_fields_set):
        raise Problem(422, "name at least one field to change")
    return body


async def _check_admin(request: Request, who: Caller, body: TenantPatch) -> None:
    """Raises `Problem` 403 for what is the operator's own; naming it with the value that it has changes nothing."""
    stored = await administration_of(request).tenants.one(who.tenant)
    if body.status not in (None, stored.status):
        raise Problem(403, "status: only the operator may set it", "status")
    for name in OPERATORS_OWN if body.settings is not None else ():
        given = getattr(body.settings, name)
        if name in body.settings.model_fields_set and given != getattr(stored.settings, name):  # type: ignore[union-attr]
            raise Problem(403, f"settings.{name}: only the operator may set it", f"settings.{name}")


def _operators_own(request: Request, who: Caller) -> bool:
    """Whether the operator acts for the tenant that its own key is of."""
    return visit_of(request.scope).tenant == who.tenant
