"""What replicas remember, for the operator: how well it serves, and a way to make them all forget it."""

from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from domain.caching import Flushable
from domain.errors import NotFound, Unavailable
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import needs
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import Json

router = APIRouter(prefix="/api/v1/admin/caches", tags=["administration"])
Operates = Annotated[Caller, needs(Permission.PLATFORM_OPERATE)]


class CacheView(BaseModel):
    """A cache as the replica that answers has used it since it began; all replicas are at `/metrics`."""

    name: str
    object: Literal["cache"] = "cache"
    shared: bool
    entries: int | None
    bound: int | None
    hits: int
    misses: int
    hit_rate: float | None
    evicted: int


class CacheList(BaseModel):
    object: Literal["list"] = "list"
    data: list[CacheView]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False


class FlushedCache(BaseModel):
    name: str
    object: Literal["cache"] = "cache"
    flushed: Literal[True] = True


@router.get("", response_model=None, responses={200: {"model": CacheList}})
async def list_caches(request: Request, who: Operates) -> Response:
    """All caches, with the figures of the replica that answers."""
    named = parts_of(request).caches.named
    names = sorted(named)
    return Answer(
        {
            "object": "list",
            "data": [_view(name, named[name]) for name in names],
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
            "has_more": False,
        }
    )


@router.post("/{name}/flush", response_model=None, responses={200: {"model": FlushedCache}})
async def flush_cache(request: Request, who: Operates, name: str) -> Response:
    """Forget all that is in this cache, in every replica within a second."""
    parts = parts_of(request)
    cache = parts.caches.named.get(name)
    if cache is None:
        raise NotFound("there is no such cache")
    await parts.tell_flush(who, name)
    await cache.flush()
    if parts.watch is not None:
        with suppress(Unavailable):
            await parts.watch.refresh()
    return Answer({"name": name, "object": "cache", "flushed": True})


def _view(name: str, cache: Flushable) -> Json:
    told = cache.statistics
    asked = told.hits + told.misses
    return {
        "name": name,
        "object": "cache",
        "shared": cache.shared,
        "entries": told.entries,
        "bound": told.bound,
        "hits": told.hits,
        "misses": told.misses,
        "hit_rate": round(told.hits / asked, 4) if asked else None,
        "evicted": told.evicted,
    }
