"""A shop's own service of products, by the contract of docs/catalogue-service.yaml: the reference, which can also be
slow, dead or wrong, and counts what it is asked. One server keeps many shops, `/NAME/products` and so on."""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import web

from domain.products import FoundProduct, Product, ProductQuery
from tests.conftest import free_port
from tests.doubles.shop_search import NoSuchProduct, alike, search, structure


@dataclass
class Shop:
    """`secret`: what must be in the header `header`. `dead`: requests get no answer at all; `answers`: the status or
    the raw body that every request gets instead of the right answer. `pause`: seconds before each. `asked`: paths that
    were asked, with their queries; `conditional`: how many named an ETag that still held. `most`: asked at once."""

    products: dict[str, Product] = field(default_factory=dict)
    header: str = "authorization"
    secret: str | None = None
    cache: str | None = None
    dead: bool = False
    answers: int | bytes | Callable[[web.Request], web.Response] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0
    go: asyncio.Event | None = None
    asked: list[str] = field(default_factory=list)
    conditional: int = 0
    now: int = 0
    most: int = 0

    def put(self, *products: Product) -> None:
        self.products |= {one.id: one for one in products}


class CatalogueService:
    def __init__(self) -> None:
        self.shops: dict[str, Shop] = {}
        self.root = ""

    def url(self, shop: str) -> str:
        return f"{self.root}/{shop}"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{shop}/structure", self._by(self._structure))
        app.router.add_post("/{shop}/offers", self._by(self._offers))
        app.router.add_post("/{shop}/products/lookup", self._by(self._lookup))
        app.router.add_get("/{shop}/products", self._by(self._search))
        app.router.add_get("/{shop}/products/{id}", self._by(self._product))
        app.router.add_get("/{shop}/products/{id}/recommendations", self._by(self._recommendations))
        return app

    def _by(self, answer: Callable[[Shop, web.Request], Any]) -> Callable[[web.Request], Any]:
        async def asked(request: web.Request) -> web.StreamResponse:
            shop = self.shops.get(request.match_info["shop"])
            if shop is None:
                return _error(404, "no_such_shop")
            shop.asked.append(request.path_qs.removeprefix(f"/{request.match_info['shop']}"))
            shop.now += 1
            shop.most = max(shop.most, shop.now)
            try:
                return await self._answered(shop, request, answer)
            finally:
                shop.now -= 1

        return asked

    async def _answered(self, shop: Shop, request: web.Request, answer: Any) -> web.StreamResponse:
        if shop.pause:
            await asyncio.sleep(shop.pause)
        if shop.go is not None:
            await shop.go.wait()
        if shop.dead:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if shop.secret is not None and request.headers.get(shop.header) != shop.secret:
            return _error(401, "unauthenticated")
        if isinstance(shop.answers, int):
            return web.Response(status=shop.answers, headers=shop.headers)
        if isinstance(shop.answers, bytes):
            return web.Response(body=shop.answers, content_type="application/json")
        if shop.answers is not None:
            return shop.answers(request)
        try:
            body = json.dumps(await answer(shop, request)).encode()
        except (KeyError, NoSuchProduct):
            return _error(404, "not_found")
        headers = {"etag": f'"{hashlib.sha256(body).hexdigest()}"', **shop.headers}
        if shop.cache is not None:
            headers["cache-control"] = shop.cache
        if request.method == "GET" and request.headers.get("if-none-match") == headers["etag"]:
            shop.conditional += 1
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _product(self, shop: Shop, request: web.Request) -> dict:
        return product_json(shop.products[request.match_info["id"]])

    async def _lookup(self, shop: Shop, request: web.Request) -> dict:
        ids = (await request.json())["ids"]
        return {"object": "list", "data": [product_json(shop.products[one]) for one in ids if one in shop.products]}

    async def _offers(self, shop: Shop, request: web.Request) -> dict:
        ids = (await request.json())["ids"]
        return {"object": "list", "data": [_offer(shop.products[one]) for one in ids if one in shop.products]}

    async def _structure(self, shop: Shop, request: web.Request) -> dict:
        return {"object": "catalog.structure", **structure(shop.products.values())}

    async def _search(self, shop: Shop, request: web.Request) -> dict:
        query = _query(request)
        items, total = search(shop.products.values(), query)
        return {**_list(items, query.sort == "relevance"), "total": total}

    async def _recommendations(self, shop: Shop, request: web.Request) -> dict:
        this = shop.products[request.match_info["id"]]
        return _list(alike(shop.products.values(), this, int(request.query.get("limit", "10"))), True)


def product_json(one: Product) -> dict[str, Any]:
    told = one.model_dump(mode="json", exclude_none=True, exclude={"updated_at"})
    return told | ({} if one.price is None else {"price": float(one.price)})


def _offer(one: Product) -> dict[str, Any]:
    price = None if one.price is None else str(one.price)
    return {"id": one.id, "price": price, "currency": one.currency, "stock": one.stock, "available": one.available}


def _list(items: list[FoundProduct], scored: bool) -> dict[str, Any]:
    data = [product_json(one.product) | ({"score": one.score} if scored else {}) for one in items]
    return {"object": "list", "data": data, "has_more": False}


def _query(request: web.Request) -> ProductQuery:
    asked = request.query
    attributes: dict[str, list[str]] = {}
    for name, value in asked.items():
        if name.startswith("attr."):
            attributes.setdefault(name.removeprefix("attr."), []).append(value)
    return ProductQuery(
        asked.get("q", ""),
        category=asked.get("category"),
        attributes=attributes,
        min_price=Decimal(asked["min_price"]) if "min_price" in asked else None,
        max_price=Decimal(asked["max_price"]) if "max_price" in asked else None,
        currency=asked.get("currency"),
        in_stock={"true": True, "false": False}.get(asked.get("in_stock", "")),
        group_id=asked.get("group_id"),
        sort=asked.get("sort", "relevance"),  # type: ignore[arg-type]
        limit=int(asked.get("limit", "20")),
        after=asked.get("after"),
    )


def _error(status: int, code: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": code}}, status=status)


@asynccontextmanager
async def serving_catalogues() -> AsyncIterator[CatalogueService]:
    service = CatalogueService()
    runner = web.AppRunner(service.app(), shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    service.root = f"http://127.0.0.1:{port}"
    try:
        yield service
    finally:
        for shop in service.shops.values():
            if shop.go is not None:
                shop.go.set()
        await runner.cleanup()


@contextmanager
def catalogues_in_a_thread() -> Iterator[CatalogueService]:
    """The same for tests without a loop of their own."""
    loop, started, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[CatalogueService] = []

    async def serve() -> None:
        async with serving_catalogues() as service:
            found.append(service)
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
