"""Which catalogue a tenant has: the built-in one, or a service of its own."""

import time
from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import Response

from adapters.outgoing import check_url
from domain.errors import BrainError
from domain.permissions import Permission
from domain.products import ProductQuery
from domain.tenant import Caller
from serve_app.ingress.acting import needs_for
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import checked
from serve_app.ingress.catalog_source_bodies import GivenSource, SourceAnswer, SourceTest, source_json, timeout_of
from serve_app.ingress.catalogue import sources_of
from serve_app.ingress.documents import takes
from serve_app.ingress.parts import changed_here
from storage.catalogue_sources import seal_name

router = APIRouter(prefix="/api/v1/catalog/source", tags=["catalog"])

Manages = Annotated[Caller, needs_for(Permission.CATALOG_MANAGE)]


@router.get("", response_model=None, responses={200: {"model": SourceAnswer}})
async def get_source(request: Request, who: Manages) -> Response:
    return Answer(source_json(await sources_of(request).stored.source(who.tenant)))


@router.put("", response_model=None, responses={200: {"model": SourceAnswer}}, openapi_extra=takes(GivenSource))
async def put_source(request: Request, who: Manages) -> Response:
    """Say where products come from; it counts in every replica within a second or two. Products that are kept here stay
    here, unasked, while a service counts. The secret is given anew each time."""
    sources = sources_of(request)
    body = checked(GivenSource, await request.body(), strict=True)
    if body.kind == "built-in" or body.url is None:
        await sources.stored.delete(who)
        made = None
    else:
        check_url(body.url, sources.allowed)
        url, auth = body.url.rstrip("/"), body.auth
        sealed = None if auth is None else sources.keys.seal(auth.secret.encode(), seal_name(who.tenant, url))
        made = await sources.stored.put(
            who,
            url,
            "none" if auth is None else auth.kind,
            None if auth is None else auth.name,
            sealed,
            timeout_of(body),
        )
    await changed_here(request)
    return Answer(source_json(made))


@router.delete("", response_model=None, responses={200: {"model": SourceAnswer}})
async def delete_source(request: Request, who: Manages) -> Response:
    """Back to the built-in catalogue, with the products that it has."""
    await sources_of(request).stored.delete(who)
    await changed_here(request)
    return Answer(source_json(None))


@router.post("/test", response_model=None, responses={200: {"model": SourceTest}})
async def try_source(request: Request, who: Manages) -> Response:
    """Ask the catalogue for its structure and one product, without what is remembered of it."""
    sources = sources_of(request)
    kind = "built-in" if await sources.stored.source(who.tenant) is None else "http"
    products = categories = found = error = None
    began = time.monotonic()
    try:
        catalogue = await sources.catalogues.of(who.tenant, remembers=False)
        structure = await catalogue.structure(who.tenant)
        products, categories = structure.total, len(structure.categories)
        found = len((await catalogue.search(who.tenant, ProductQuery(sort="title", limit=1))).items)
    except BrainError as failure:
        error = str(failure)
    return Answer(
        {
            "object": "catalog.source.test",
            "kind": kind,
            "ok": error is None,
            "ms": round((time.monotonic() - began) * 1000, 1),
            "products": products,
            "categories": categories,
            "found": found,
            "error": error,
        }
    )
