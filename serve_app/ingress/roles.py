"""Roles and permissions: what every tenant has, and the roles that a tenant defines for itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.permissions import Permission
from domain.roles import Role
from domain.tenant import Caller
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import needs
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import Limit, Order, text
from serve_app.ingress.parts import administration_of, changed_here
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.tenant_bodies import PermissionList, Removed, RoleCreate, RoleList, RolePut, role_json
from storage.pages import PageQuery
from storage.roles import NewRole

router = APIRouter(prefix="/api/v1/roles", tags=["roles"])
permissions = APIRouter(prefix="/api/v1/permissions", tags=["roles"])

ReadsRoles = Annotated[Caller, needs(Permission.ROLES_READ)]
ManagesRoles = Annotated[Caller, needs(Permission.ROLES_MANAGE)]


@permissions.get("", response_model=None, responses={200: {"model": PermissionList}})
async def list_permissions(
    request: Request, who: ReadsRoles, after: str | None = None, limit: Limit = 100, order: Order = None
) -> Response:
    """All that a role may be made of; `operators_own` ones are in no tenant's role."""
    query = PageQuery(after, limit, order == "desc")
    names = sorted((one.value for one in Permission), reverse=query.descending)
    if after is not None:
        names = [name for name in names if (name < after if query.descending else name > after)]
    data = [
        {"object": "permission", "name": name, "operators_own": Permission(name).beyond_tenant}
        for name in names[:limit]
    ]
    return Answer(_named(data, len(names) > limit))


@router.get("", response_model=None, responses={200: {"model": RoleList}})
async def list_roles(
    request: Request, who: ReadsRoles, after: str | None = None, limit: Limit = 20, order: Order = None
) -> Response:
    """The roles that every tenant has and the tenant's own, in the order of their names."""
    query = PageQuery(text("after", after), limit, order == "desc")
    found = await administration_of(request).roles.page(who.tenant, query)
    return Answer(_named([role_json(one) for one in found.data], found.has_more))


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": Role}},
    openapi_extra=takes(RoleCreate, creates=True),
)
async def create_role(request: Request, who: ManagesRoles) -> Response:
    """Define a role, of permissions that the caller has itself."""
    body, key = checked(RoleCreate, await request.body(), strict=True), idempotency_key(request)
    new = NewRole(body.name, body.description, body.permissions, key, body_hash("roles", body))
    made, replayed = await administration_of(request).roles.create(who, new)
    await changed_here(request)
    return Answer(role_json(made), 201, REPLAYED if replayed else None)


@router.get("/{name}", response_model=None, responses={200: {"model": Role}})
async def get_role(request: Request, who: ReadsRoles, name: str) -> Response:
    return Answer(role_json(await administration_of(request).roles.one(who.tenant, text("name", name) or "")))


@router.put("/{name}", response_model=None, responses={200: {"model": Role}}, openapi_extra=takes(RolePut))
async def put_role(request: Request, who: ManagesRoles, name: str) -> Response:
    """Replace what a role of the tenant's own may do, for all keys and users that have it."""
    body = checked(RolePut, await request.body(), strict=True)
    if body.name not in (None, name):
        raise Problem(422, "name: is not the one of the path", "name")
    new = NewRole(text("name", name) or "", body.description, body.permissions)
    changed = await administration_of(request).roles.put(who, new)
    await changed_here(request)
    return Answer(role_json(changed))


@router.delete("/{name}", response_model=None, responses={200: {"model": Removed}})
async def delete_role(request: Request, who: ManagesRoles, name: str) -> Response:
    """Remove a role of the tenant's own that no key and no user has."""
    await administration_of(request).roles.delete(who, text("name", name) or "")
    await changed_here(request)
    return Answer({"id": name, "object": "role", "deleted": True})


def _named(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A list of what has names and no ids."""
    ends = {"first_id": data[0]["name"] if data else None, "last_id": data[-1]["name"] if data else None}
    return {"object": "list", "data": data, **ends, "has_more": has_more}
