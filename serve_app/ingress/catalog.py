"""Products: kept, found, and recommended."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, RootModel
from starlette.responses import Response

from domain.errors import BrainError, NotFound
from domain.given_products import GivenProduct, is_product_id
from domain.permissions import Permission
from domain.products import FoundProducts, ProductQuery
from domain.tenant import Caller
from serve_app.ingress.acting import needs_for
from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.bodies import Native, checked
from serve_app.ingress.catalogue import catalogue_of
from serve_app.ingress.documents import takes
from serve_app.ingress.params import Limit
from serve_app.ingress.parts import parts_of
from serve_app.ingress.product_answers import (
    DeletedProduct,
    Imported,
    OfferList,
    ProductAnswer,
    ProductList,
    StructureAnswer,
    found_json,
    offer_json,
    product_json,
    structure_json,
)
from serve_app.ingress.product_import import import_products
from serve_app.ingress.product_query import product_query

router = APIRouter(prefix="/api/v1/catalog", tags=["catalog"])
EMBEDDING = 0.5  # seconds that a search waits for the meaning of its words

Reads = Annotated[Caller, needs_for(Permission.CATALOG_READ)]
Manages = Annotated[Caller, needs_for(Permission.CATALOG_MANAGE)]
Asked = Annotated[ProductQuery, Depends(product_query)]


class OffersAsked(Native):
    ids: Annotated[list[str], Field(min_length=1, max_length=100)]


class ManyProducts(RootModel[Any]):
    """An array of products, or a product a line (`application/x-ndjson`): each as the body of a `PUT`, and its `id`. A
    line that is none is named in the answer, and refuses no other one."""


@router.get("/products", response_model=None, responses={200: {"model": ProductList}})
async def list_products(request: Request, who: Reads, query: Asked) -> Response:
    """Products: with `q` the best first, by words and by meaning, one variant of each group, on one page; else a list
    in order. Filters: all that are given must hold; `attr.colour=red&attr.colour=blue` is one of both colours."""
    asked = replace(query, limit=query.limit + 1)
    if query.sort == "relevance" and query.text.strip():
        asked = replace(asked, embedding=await _embedding(request, query.text))
    found = await catalogue_of(request).read.search(who.tenant, asked)
    return _list(found, query.limit, query.sort == "relevance")


@router.post(
    "/products/import",
    response_model=None,
    responses={200: {"model": Imported}},
    openapi_extra=takes(ManyProducts),
)
async def import_many(request: Request, who: Manages) -> Response:
    """Store many products, as a JSON array or one a line; those that are there are replaced, so it may be repeated.
    Lines that are wrong are named, the others are kept."""
    return Answer(
        (await import_products(await catalogue_of(request).writable(who.tenant), who, await request.body())).json()
    )


@router.post("/offers", response_model=None, responses={200: {"model": OfferList}}, openapi_extra=takes(OffersAsked))
async def offers(request: Request, who: Reads) -> Response:
    """Prices and stock of up to 100 products as they are now; unknown ids are left out."""
    body = checked(OffersAsked, await request.body(), strict=True)
    found = await catalogue_of(request).read.offers(who.tenant, body.ids)
    return Answer({"object": "list", "data": [offer_json(one) for one in found]})


@router.get("/structure", response_model=None, responses={200: {"model": StructureAnswer}})
async def structure(request: Request, who: Reads) -> Response:
    """How many products each category has, and the values of each attribute."""
    return Answer(structure_json(await catalogue_of(request).read.structure(who.tenant)))


@router.get("/products/{product_id}", response_model=None, responses={200: {"model": ProductAnswer}})
async def get_product(request: Request, who: Reads, product_id: str) -> Response:
    return Answer(product_json(await catalogue_of(request).read.product(who.tenant, _known(product_id))))


@router.put(
    "/products/{product_id}",
    response_model=None,
    responses={200: {"model": ProductAnswer}, 201: {"model": ProductAnswer}},
    openapi_extra=takes(GivenProduct),
)
async def put_product(request: Request, who: Manages, product_id: str) -> Response:
    """Store a product under the shop's own id, or replace it; 201 where it is new."""
    if not is_product_id(product_id):
        raise NotFound("a product's id has 1 to 128 printable characters")
    store = await catalogue_of(request).writable(who.tenant)
    body = checked(GivenProduct, await request.body(), strict=True)
    new = await store.put(who.tenant, [body.product(product_id)], who)
    return Answer(product_json(await store.product(who.tenant, product_id)), 201 if new else 200)


@router.delete("/products/{product_id}", response_model=None, responses={200: {"model": DeletedProduct}})
async def delete_product(request: Request, who: Manages, product_id: str) -> Response:
    store = await catalogue_of(request).writable(who.tenant)
    await store.delete(who.tenant, _known(product_id), who)
    return Answer({"id": product_id, "object": "product", "deleted": True})


@router.get("/products/{product_id}/recommendations", response_model=None, responses={200: {"model": ProductList}})
async def recommendations(request: Request, who: Reads, product_id: str, limit: Limit = 10) -> Response:
    """Products that are like this one or go with it; never itself, nor another variant of it."""
    return _list(await catalogue_of(request).read.recommend(who.tenant, _known(product_id), limit), limit, True)


def _list(found: FoundProducts, limit: int, scored: bool) -> Answer:
    shown = found.items[:limit]
    data = [found_json(one) if scored else product_json(one.product) for one in shown]
    return Answer(
        {**list_json(data, not scored and len(found.items) > limit), "total": found.total, "stale": found.stale}
    )


def _known(product_id: str) -> str:
    if not is_product_id(product_id):
        raise NotFound("there is no such product")
    return product_id


async def _embedding(request: Request, text: str) -> list[float] | None:
    """None where it cannot be had in time: words alone count then."""
    with contextlib.suppress(BrainError, TimeoutError):
        return list(await asyncio.wait_for(parts_of(request).embedder.embed(text), EMBEDDING))
    return None
