"""For whom a caller acts: its own tenant, or another one that the operator names."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query
from starlette.requests import Request

from domain.errors import NotFound
from domain.tenant import Caller
from serve_app.ingress.auth import administrator, authenticated
from serve_app.ingress.model_settings import registry_of
from serve_app.ingress.params import known
from serve_app.ingress.parts import parts_of

TenantId = Annotated[str | None, Query(description="another tenant: the operator's alone", max_length=256)]


async def reads_for(request: Request, tenant_id: TenantId = None) -> Caller:
    return await _acting(request, await authenticated(request), tenant_id)


async def writes_for(request: Request, tenant_id: TenantId = None) -> Caller:
    """An administrator of the tenant, or the operator."""
    return await _acting(request, await administrator(request), tenant_id)


async def _acting(request: Request, caller: Caller, tenant_id: str | None) -> Caller:
    if tenant_id is None or tenant_id == caller.tenant:
        return caller
    registry = registry_of(parts_of(request))
    if caller.role != "operator" or not await registry.store.has_tenant(known(tenant_id, "ten", "tenant")):
        raise NotFound("there is no such tenant")
    return replace(caller, tenant=tenant_id)


ReadsFor = Annotated[Caller, Depends(reads_for)]
WritesFor = Annotated[Caller, Depends(writes_for)]
