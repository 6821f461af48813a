"""Which catalogue a tenant has, through the API."""

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from domain.ids import new_id
from serve_app.ingress.catalogue import Catalogue, Sources
from serve_app.ingress.parts import IngressSettings
from serve_app.tenant_catalogues import TenantCatalogues, endpoints, forgets_endpoints
from storage.catalogue_sources import PostgresCatalogueSources
from storage.data_export import PostgresDataExport
from storage.products import PostgresProducts
from tests.doubles.catalogue_service import Shop
from tests.storage.catalogue_world import SHOP
from tests.storage.http_catalogues import LOOPBACK, HttpCatalogues, http_catalogues
from tests.unit.ingress_world import MASTER, World, world
from tests.unit.test_ingress_models import make_key

SECRET = "canary-of-a-shops-secret-9c2"
BUILT_IN = {
    "object": "catalog.source",
    "kind": "built-in",
    "url": None,
    "auth": None,
    "timeout_ms": None,
    "updated_at": None,
}
PATH = "/api/v1/catalog/source"


@dataclass
class Brain:
    world: World
    http: HttpCatalogues
    tenant: str
    admin: dict[str, str]
    member: dict[str, str]
    other: dict[str, str]

    async def call(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        headers = options.pop("headers", self.admin)
        answer = await self.world.http.request(method, path, json=body, headers=headers, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    def shop(self) -> tuple[str, Shop]:
        """A service with a shop of products, and its URL."""
        name = new_id("req")
        self.http.service.shops[name] = shop = Shop()
        shop.put(*SHOP)
        return self.http.service.url(name), shop


@pytest.fixture
async def brain(database_url: str, tenant: str, redis_url: str) -> AsyncIterator[Brain]:
    async with (
        http_catalogues(redis_url) as http,
        world(database_url, tenant, IngressSettings(poll=0.01), administered=True) as made,
    ):
        products, stored = PostgresProducts(made.pool), PostgresCatalogueSources(made.pool)
        known = endpoints(stored, MASTER)
        read = TenantCatalogues(products, http.keeping, known)
        made.parts.catalogue = Catalogue(read, products, Sources(stored, MASTER, LOOPBACK, read))
        assert made.parts.watch is not None
        made.parts.watch.listeners.append(forgets_endpoints(known))
        own, other = new_id("ten"), new_id("ten")
        keys = (make_key(database_url, *key) for key in ((own, "admin"), (own, "member"), (other, "admin")))
        yield Brain(made, http, own, *keys)


def given(url: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "http", "url": url, **fields}


async def test_a_tenants_products_come_from_its_service_and_then_from_here_again(brain: Brain) -> None:
    url, shop = brain.shop()
    await brain.call("PUT", "/api/v1/catalog/products/tent", {"title": "A tent that is kept here"}, 201)
    assert await brain.call("GET", PATH) == BUILT_IN
    auth = {"kind": "header", "name": "x-shop-key", "secret": SECRET}
    shop.header, shop.secret = "x-shop-key", SECRET
    made = await brain.call("PUT", PATH, given(f"{url}/", auth=auth, timeout_ms=1500))
    assert made == {
        "object": "catalog.source",
        "kind": "http",
        "url": url,
        "auth": {"kind": "header", "name": "x-shop-key"},
        "timeout_ms": 1500,
        "updated_at": made["updated_at"],
    }
    assert await brain.call("GET", PATH) == made
    found = await brain.call("GET", "/api/v1/catalog/products?q=tent", headers=brain.member)
    assert [(one["id"], one["title"]) for one in found["data"]] == [("tent", "Tent for two")]
    assert (await brain.call("GET", "/api/v1/catalog/structure"))["total"] == len(SHOP)
    pages = await brain.call("GET", "/api/v1/catalog/products?sort=price&limit=4")
    assert pages["has_more"] and len(pages["data"]) == 4
    assert await brain.call("GET", PATH, headers=brain.other) == BUILT_IN
    assert (await brain.call("GET", "/api/v1/catalog/structure", headers=brain.other))["total"] == 0

    assert await brain.call("DELETE", PATH) == BUILT_IN
    assert (await brain.call("GET", "/api/v1/catalog/products/tent"))["title"] == "A tent that is kept here"
    assert await brain.call("PUT", PATH, {"kind": "built-in"}) == BUILT_IN


async def test_products_that_are_kept_elsewhere_are_not_written_here(brain: Brain) -> None:
    url, _ = brain.shop()
    await brain.call("PUT", "/api/v1/catalog/products/cup", {"title": "Cup"}, 201)
    await brain.call("PUT", PATH, given(url))
    for method, path, body in (
        ("PUT", "/api/v1/catalog/products/cup", {"title": "Mug"}),
        ("DELETE", "/api/v1/catalog/products/cup", None),
        ("POST", "/api/v1/catalog/products/import", [{"id": "cup", "title": "Mug"}]),
    ):
        answer = await brain.call(method, path, body, 409)
        assert answer["error"]["code"] == "catalogue_elsewhere"
    await brain.call("DELETE", PATH)
    assert (await brain.call("GET", "/api/v1/catalog/products/cup"))["title"] == "Cup"


async def test_a_source_can_be_tried(brain: Brain) -> None:
    tried = await brain.call("POST", f"{PATH}/test")
    assert (tried["kind"], tried["ok"], tried["products"], tried["found"]) == ("built-in", True, 0, 0)
    url, shop = brain.shop()
    await brain.call("PUT", PATH, given(url, auth={"kind": "bearer", "secret": SECRET}))
    for _ in range(2):
        tried = await brain.call("POST", f"{PATH}/test")
        assert (tried["kind"], tried["ok"], tried["error"]) == ("http", True, None)
        assert (tried["products"], tried["categories"], tried["found"]) == (len(SHOP), 5, 1) and tried["ms"] > 0
    assert len(shop.asked) == 4, "nothing that is remembered answers"
    shop.secret = "another"
    tried = await brain.call("POST", f"{PATH}/test")
    assert not tried["ok"] and "let us in" in tried["error"] and tried["products"] is None
    assert SECRET not in json.dumps(tried)


async def test_a_service_that_is_down_is_503_with_what_to_do(brain: Brain) -> None:
    url, shop = brain.shop()
    await brain.call("PUT", PATH, given(url))
    shop.answers = 500
    answer = await brain.call("GET", "/api/v1/catalog/structure", status=503)
    assert answer["error"]["code"] == "catalogue_unavailable"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "http"}, 422),
        ({"kind": "ftp", "url": "https://a.example"}, 422),
        ({"kind": "built-in", "url": "https://a.example"}, 422),
        (given("https://10.0.0.1"), 422),
        (given("http://shop.example"), 422),
        (given("https://user:pass@shop.example"), 422),
        (given("https://shop.example/?a=b"), 422),
        (given("https://shop.example", timeout_ms=10), 422),
        (given("https://shop.example", auth={"kind": "bearer", "name": "x", "secret": "s"}), 422),
        (given("https://shop.example", auth={"kind": "header", "secret": "s"}), 422),
        (given("https://shop.example", auth={"kind": "header", "name": "host", "secret": "s"}), 422),
        (given("https://shop.example", auth={"kind": "bearer", "secret": "a\r\nb: c"}), 422),
        (given("https://shop.example", auth={"kind": "bearer"}), 422),
        (given("https://shop.example", more=1), 422),
    ],
    ids=str,
)
async def test_what_is_no_source_is_refused(brain: Brain, body: dict[str, Any], status: int) -> None:
    await brain.call("PUT", PATH, body, status)
    assert await brain.call("GET", PATH) == BUILT_IN


async def test_only_those_who_manage_the_catalogue_see_or_set_its_source(brain: Brain) -> None:
    for method, path, body in (
        ("GET", PATH, None),
        ("PUT", PATH, {"kind": "built-in"}),
        ("DELETE", PATH, None),
        ("POST", f"{PATH}/test", None),
    ):
        await brain.call(method, path, body, 403, headers=brain.member)


async def test_the_secret_is_in_no_answer_log_audit_or_export(
    brain: Brain, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, shop = brain.shop()
    with caplog.at_level(logging.DEBUG):
        answers = [await brain.call("PUT", PATH, given(url, auth={"kind": "bearer", "secret": SECRET}))]
        answers.append(await brain.call("GET", PATH))
        shop.answers = b"nonsense"
        answers.append(await brain.call("POST", f"{PATH}/test"))
        answers.append(await brain.call("GET", "/api/v1/catalog/products?q=tent", status=503))
        shop.answers, shop.dead = None, True
        answers.append(await brain.call("GET", "/api/v1/catalog/products?q=boots", status=503))
    assert any(one.name == "brain.catalogue" for one in caplog.records)
    assert SECRET not in caplog.text and SECRET not in json.dumps(answers)
    with psycopg.connect(database_url) as connection:
        audit = connection.execute(
            "SELECT action, detail FROM brain.audit WHERE tenant_id = %s ORDER BY id", [brain.tenant]
        ).fetchall()
    assert audit == [("catalog.source.set", {"url": url, "auth": "bearer", "timeout_ms": 2000})]
    export = PostgresDataExport(brain.world.pool)
    lines = [line async for page in export.lines(brain.tenant, None) for line in page]
    [line] = [one for one in lines if one["object"] == "catalog.source"]
    assert line["url"] == url and "sealed" not in line and SECRET not in str(lines)
