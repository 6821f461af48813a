"""From a request to its caller."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from domain.tenant import Caller
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import Problem
from serve_app.ingress.parts import parts_of

LONGEST_KEY = 1024


async def authenticated(request: Request) -> Caller:
    """The caller that the `Authorization` header names. Raises `Problem` 401, and `Unavailable`."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise _unauthenticated("send your API key as `Authorization: Bearer <key>`")
    caller = await parts_of(request).keys.caller(key) if len(key) <= LONGEST_KEY else None
    if caller is None:
        raise _unauthenticated("this API key is not valid")
    visit_of(request.scope).tenant = caller.tenant
    return caller


async def administrator(request: Request) -> Caller:
    """A caller with the role `operator` or `admin`. Raises `Problem` 401 or 403."""
    caller = await authenticated(request)
    if caller.role not in ("operator", "admin"):
        raise Problem(403, "this needs an administrator's key")
    return caller


async def operator(request: Request) -> Caller:
    """A caller with the role `operator`. Raises `Problem` 401 or 403."""
    caller = await authenticated(request)
    if caller.role != "operator":
        raise Problem(403, "this needs the operator's key")
    return caller


def _unauthenticated(words: str) -> Problem:
    return Problem(401, words, headers={"www-authenticate": 'Bearer realm="brain"'})


Who = Annotated[Caller, Depends(authenticated)]
Administrator = Annotated[Caller, Depends(administrator)]
Operator = Annotated[Caller, Depends(operator)]
