"""Data of a user or of a tenant: all of it as JSON lines, or all of it erased, with a signed receipt."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from domain.errors import NotFound, Unavailable
from domain.ids import is_id
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.erasing import Erasing
from serve_app.ingress.answer_models import ErasureReceipt, ReceiptKeys
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import needs
from serve_app.ingress.params import known
from serve_app.ingress.parts import Privacy, parts_of
from storage.data_export import Line

router = APIRouter(prefix="/api/v1", tags=["privacy"])
public = APIRouter(tags=["privacy"])
Exports = Annotated[Caller, needs(Permission.DATA_EXPORT)]
Erases = Annotated[Caller, needs(Permission.DATA_ERASE)]
_LINES = {"content": {"application/x-ndjson": {}}, "description": "a JSON object a line; `object` says what it is"}
_RECEIPTS: dict[int | str, dict[str, Any]] = {
    200: {"model": ErasureReceipt},
    202: {"model": ErasureReceipt, "description": "not done yet: ask again"},
}
LONGEST = 255  # characters of a user's name, as conversations take it: it may hold a slash, too


@router.post("/users/{user_id:path}/export", response_model=None, responses={200: _LINES})
async def export_user(request: Request, who: Exports, user_id: str) -> Response:
    """All that is kept of a user, registered or only named by conversations."""
    data = _privacy(request).export
    user = _own(who, user_id)
    await data.check_user(who.tenant, user)
    await data.told(who, "user.exported", user if is_id(user, "usr") else None)  # a name must not outlive its user
    return _written(data.lines(who.tenant, user), "user")


@router.post("/users/{user_id:path}/erase", response_model=None, responses=_RECEIPTS)
async def erase_user(request: Request, who: Erases, user_id: str) -> Response:
    """Erase a user with all conversations, through their hosts. May be asked again at any time, and goes on then."""
    return _receipt(await _erasing(request).user(who, _own(who, user_id)))


@router.post("/admin/tenants/{tenant_id}/export", response_model=None, responses={200: _LINES})
async def export_tenant(request: Request, who: Exports, tenant_id: str) -> Response:
    """All that is kept of a tenant: the operator's, or an administrator's of that tenant."""
    tenant = _for_tenant(who, tenant_id)
    data = _privacy(request).export
    first = await data.tenant(tenant.tenant)
    await data.told(tenant, "tenant.exported", tenant_id)
    return _written(data.lines(tenant.tenant, None), "tenant", first)


@router.post("/admin/tenants/{tenant_id}/erase", response_model=None, responses=_RECEIPTS)
async def erase_tenant(request: Request, who: Erases, tenant_id: str) -> Response:
    """Erase a tenant with all that is its: the operator's, or the owner's of that tenant. It cannot be undone."""
    return _receipt(await _erasing(request).tenant(_for_tenant(who, tenant_id)))


@public.get("/.well-known/receipts.json", response_model=None, responses={200: {"model": ReceiptKeys}})
async def receipt_keys(request: Request) -> Response:
    """The public keys of receipts (RFC 7517), also those of earlier master keys."""
    return Answer({"keys": await _erasing(request).keys()}, headers={"cache-control": "public, max-age=300"})


def _receipt(signed: dict[str, object]) -> Answer:
    return Answer(signed, 200 if signed["status"] == "completed" else 202)


def _privacy(request: Request) -> Privacy:
    found = parts_of(request).privacy
    if found is None:
        raise Unavailable("data can be neither exported nor erased here")
    return found


def _erasing(request: Request) -> Erasing:
    return _privacy(request).erasing


def _own(who: Caller, user_id: str) -> str:
    if not 0 < len(user_id) <= LONGEST or "\0" in user_id or who.only_user not in (None, user_id):
        raise NotFound("there is no such user")
    return user_id


def _for_tenant(who: Caller, tenant_id: str) -> Caller:
    """The caller, acting for that tenant. Another tenant's id is unknown to all but the operator."""
    known(tenant_id, "ten", "tenant")
    if (who.tenant != tenant_id and not who.operator) or who.only_user is not None:
        raise NotFound("there is no such tenant")
    return replace(who, tenant=tenant_id)


def _written(pages: AsyncIterator[list[Line]], name: str, first: Line | None = None) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        if first is not None:
            yield orjson.dumps(first) + b"\n"
        async for page in pages:
            yield b"".join(orjson.dumps(line) + b"\n" for line in page)

    disposition = {"content-disposition": f'attachment; filename="{name}.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=disposition)
