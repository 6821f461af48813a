"""For whom a caller acts: its own tenant, or another one that the operator names."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.requests import Request

from domain.errors import NotFound
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.auth import Needs
from serve_app.ingress.model_settings import registry_of
from serve_app.ingress.params import known
from serve_app.ingress.parts import parts_of

TenantId = Annotated[str | None, Query(description="another tenant: the operator's alone", max_length=256)]


class NeedsFor(Needs):
    """As `Needs`, for the tenant that the query's `tenant_id` names."""

    async def __call__(self, request: Request, tenant_id: TenantId = None) -> Caller:
        caller = await super().__call__(request)
        if tenant_id is None or tenant_id == caller.tenant:
            return caller
        registry = registry_of(parts_of(request))
        if not caller.operator or not await registry.store.has_tenant(known(tenant_id, "ten", "tenant")):
            raise NotFound("there is no such tenant")
        return replace(caller, tenant=tenant_id)


def needs_for(permission: Permission) -> Any:
    return Depends(NeedsFor(permission))


ReadsIntents = Annotated[Caller, needs_for(Permission.INTENTS_READ)]
ManagesIntents = Annotated[Caller, needs_for(Permission.INTENTS_MANAGE)]
