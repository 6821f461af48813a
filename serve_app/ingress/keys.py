"""API keys: the operator's for any tenant, and those of their own tenant for its administrators."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.keys import MadeKey
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.answers import Answer, list_json, page_answer
from serve_app.ingress.auth import needs
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import administration_of, changed_here
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.tenant_bodies import KeyCreate, KeyList, KeyRotate, MadeKeys, Removed, key_json
from serve_app.ingress.tenants import RunsTenant
from storage.keys import Fresh, NewKey, Once
from storage.pages import PageQuery

admin = APIRouter(prefix="/api/v1/admin/tenants/{tenant_id}", tags=["administration"])
own = APIRouter(prefix="/api/v1/keys", tags=["keys"])

ReadsKeys = Annotated[Caller, needs(Permission.KEYS_READ)]
ManagesKeys = Annotated[Caller, needs(Permission.KEYS_MANAGE)]


@admin.post(
    "/keys",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKey}},
    openapi_extra=takes(KeyCreate, creates=True),
)
async def create_key_of_tenant(request: Request, who: RunsTenant, tenant_id: str) -> Response:
    """Make a key for a tenant. This answer alone shows it."""
    return await _create(request, who)


@admin.get("/keys", response_model=None, responses={200: {"model": KeyList}})
async def list_keys_of_tenant(request: Request, who: RunsTenant, tenant_id: str, page: NewestFirst) -> Response:
    """A tenant's keys, newest first, also those that have ended."""
    return await _list(request, who, page)


@admin.delete("/keys/{key_id}", response_model=None, responses={200: {"model": Removed}})
async def revoke_key_of_tenant(request: Request, who: RunsTenant, tenant_id: str, key_id: str) -> Response:
    """End a key. No replica takes it a second later."""
    return await _revoke(request, who, key_id)


@admin.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKey}},
    openapi_extra=takes(KeyRotate, required=False, creates=True),
)
async def rotate_key_of_tenant(request: Request, who: RunsTenant, tenant_id: str, key_id: str) -> Response:
    """Put a new key in the place of one, which ends after the overlap."""
    return await _rotate(request, who, key_id)


@admin.post(
    "/rotate-keys",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKeys}},
    openapi_extra=takes(KeyRotate, required=False, creates=True),
)
async def rotate_keys_of_tenant(request: Request, who: RunsTenant, tenant_id: str) -> Response:
    """Put new keys in the place of all of a tenant's, which end after the overlap."""
    return await _rotate_all(request, who)


@own.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKey}},
    openapi_extra=takes(KeyCreate, creates=True),
)
async def create_key(request: Request, who: ManagesKeys) -> Response:
    """Make a key that may do no more than the caller may. This answer alone shows it."""
    return await _create(request, who)


@own.get("", response_model=None, responses={200: {"model": KeyList}})
async def list_keys(request: Request, who: ReadsKeys, page: NewestFirst) -> Response:
    """The tenant's keys, newest first, also those that have ended."""
    return await _list(request, who, page)


@own.post(
    "/rotate",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKeys}},
    openapi_extra=takes(KeyRotate, required=False, creates=True),
)
async def rotate_keys(request: Request, who: ManagesKeys) -> Response:
    """Put new keys in the place of all of the tenant's, which end after the overlap."""
    return await _rotate_all(request, who)


@own.delete("/{key_id}", response_model=None, responses={200: {"model": Removed}})
async def revoke_key(request: Request, who: ManagesKeys, key_id: str) -> Response:
    """End a key. No replica takes it a second later."""
    return await _revoke(request, who, key_id)


@own.post(
    "/{key_id}/rotate",
    status_code=201,
    response_model=None,
    responses={201: {"model": MadeKey}},
    openapi_extra=takes(KeyRotate, required=False, creates=True),
)
async def rotate_key(request: Request, who: ManagesKeys, key_id: str) -> Response:
    """Put a new key in the place of one, which ends after the overlap."""
    return await _rotate(request, who, key_id)


async def _create(request: Request, who: Caller) -> Response:
    body = checked(KeyCreate, await request.body(), strict=True)
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise Problem(422, "expires_at: must lie in the future", "expires_at")
    user = body.user_id if body.user_id is not None else who.only_user
    new = NewKey(body.name, body.role, body.scopes, user, body.expires_at)
    once = Once(idempotency_key(request), body_hash("keys", body))
    made, replayed = await administration_of(request).keys.create(who, new, once)
    return Answer(key_json(made), 201, REPLAYED if replayed else None)


async def _list(request: Request, who: Caller, page: PageQuery) -> Response:
    if page.after is not None:
        known(page.after, "key", "key")
    return page_answer(await administration_of(request).keys.page(who.tenant, page), key_json)


async def _revoke(request: Request, who: Caller, key_id: str) -> Response:
    known(key_id, "key", "key")
    await administration_of(request).keys.revoke(who, key_id)
    await changed_here(request)
    return Answer({"id": key_id, "object": "api_key", "deleted": True})


async def _rotate(request: Request, who: Caller, key_id: str) -> Response:
    known(key_id, "key", "key")
    body, once = await _rotation(request, f"keys/{key_id}/rotate")
    made, replayed = await administration_of(request).keys.rotate(who, key_id, body.overlap_seconds, Fresh(), once)
    await changed_here(request)
    return Answer(key_json(made), 201, REPLAYED if replayed else None)


async def _rotate_all(request: Request, who: Caller) -> Response:
    body, once = await _rotation(request, "keys/rotate")
    made, replayed = await administration_of(request).keys.rotate_all(who, body.overlap_seconds, once)
    await changed_here(request)
    return Answer(list_json([key_json(one) for one in made], False), 201, REPLAYED if replayed else None)


async def _rotation(request: Request, route: str) -> tuple[KeyRotate, Once]:
    body = checked(KeyRotate, await request.body() or b"{}", strict=True)
    return body, Once(idempotency_key(request), body_hash(route, body))
