"""Products through the API: kept exactly, found, refused with a word about what is wrong."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from domain.ids import new_id
from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import World, world
from tests.unit.test_ingress_models import make_key

SHIRT = {
    "title": "Red T-shirt",
    "description": "Cotton.",
    "url": "https://shop.example/1?a=b",
    "price": 19.99,
    "currency": "USD",
    "stock": 3,
    "attributes": {"Colour": "red", "size": "M"},
    "category": "Clothing > Shirts",
}


@dataclass
class Shop:
    world: World
    tenant: str
    admin: dict[str, str]
    member: dict[str, str]
    other: dict[str, str]

    async def call(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        headers = options.pop("headers", self.admin)
        answer = await self.world.http.request(method, f"/api/v1/catalog/{path}", json=body, headers=headers, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def put(self, id: str, status: int = 201, **fields: Any) -> Any:
        return await self.call("PUT", f"products/{quote(id, safe='')}", {"title": id, **fields}, status)


@pytest.fixture
async def shop(database_url: str, tenant: str) -> AsyncIterator[Shop]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        own, other = new_id("ten"), new_id("ten")
        keys = (make_key(database_url, *key) for key in ((own, "admin"), (own, "member"), (other, "admin")))
        yield Shop(made, own, *keys)


async def test_a_product_is_stored_read_replaced_and_removed(shop: Shop) -> None:
    made = await shop.call("PUT", "products/sku-1", SHIRT, 201)
    assert made == {
        "id": "sku-1",
        "object": "product",
        **SHIRT,
        "attributes": {"colour": "red", "size": "M"},
        "available": None,
        "in_stock": True,
        "group_id": None,
        "updated_at": made["updated_at"],
    }
    assert made["updated_at"].endswith("Z")
    assert await shop.call("GET", "products/sku-1", headers=shop.member) == made
    assert await shop.call("PUT", "products/sku-1", SHIRT) == made, "the same again changes nothing"
    changed = await shop.call("PUT", "products/sku-1", {"title": "Blue", "available": False})
    assert (changed["price"], changed["stock"], changed["in_stock"], changed["attributes"]) == (None, None, False, {})
    gone = await shop.call("DELETE", "products/sku-1")
    assert gone == {"id": "sku-1", "object": "product", "deleted": True}
    for method in ("GET", "DELETE"):
        await shop.call(method, "products/sku-1", status=404)


async def test_another_tenants_product_is_unknown(shop: Shop) -> None:
    await shop.put("sku-1")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/recommendations")):
        await shop.call(method, f"products/sku-1{path}", status=404, headers=shop.other)
    assert (await shop.call("GET", "products", headers=shop.other))["data"] == []


async def test_a_member_reads_and_does_not_write(shop: Shop) -> None:
    await shop.put("sku-1")
    await shop.call("GET", "products?q=sku", headers=shop.member)
    await shop.call("PUT", "products/sku-2", {"title": "x"}, 403, headers=shop.member)
    await shop.call("DELETE", "products/sku-1", status=403, headers=shop.member)
    await shop.call("POST", "products/import", [], 403, headers=shop.member)


@pytest.mark.parametrize("price", [0, 0.1, 0.30, 19.99, "19.99", "1e3", 1234567.8901, "99999999999.9999", 20, "7.10"])
async def test_a_price_comes_back_as_the_number_that_it_is(shop: Shop, price: Any) -> None:
    await shop.put("sku", price=price)
    answer = await shop.world.http.get("/api/v1/catalog/products/sku", headers=shop.admin)
    [written] = [part for part in answer.text.split(",") if part.startswith('"price":')]
    assert float(written.removeprefix('"price":')) == float(price)
    assert len(written.removeprefix('"price":')) <= max(len(str(float(price))), 4)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"price": -1}, "price", "negative"),
        ({"price": "$19.99"}, "price", "'$19.99' is no number: write 19.99, and the currency in `currency`"),
        ({"price": "19,99"}, "price", "no number"),
        ({"price": True}, "price", "must be a number"),
        ({"price": 1e30}, "price", "at most"),
        ({"price": "NaN"}, "price", "no number"),
        ({"price": 0.00001}, "price", "4 digits"),
        ({"currency": "dollars"}, "currency", "3 characters"),
        ({"currency": "U$"}, "currency", "ISO 4217"),
        ({"stock": -1}, "stock", "greater than or equal to 0"),
        ({"stock": 1.5}, "stock", "integer"),
        ({"stock": "many"}, "stock", "integer"),
        ({"title": ""}, "title", "at least 1"),
        ({"title": "  "}, "title", "blank"),
        ({"title": 7}, "title", "string"),
        ({"url": "javascript:alert(1)"}, "url", "http"),
        ({"url": "https://"}, "url", "http"),
        ({"attributes": {"colour": None}}, "attributes", "'colour'"),
        ({"attributes": {"Size": "M", "size": "L"}}, "attributes", "twice"),
        ({"attributes": {f"a{n}": "x" for n in range(65)}}, "attributes", "at most 64"),
        ({"category": ""}, "category", "at least 1"),
        ({"colour": "red"}, "colour", "Extra"),
        ({"description": "a\0b"}, "description", "NUL"),
    ],
)
async def test_what_is_wrong_is_named(shop: Shop, fields: dict[str, Any], param: str, words: str) -> None:
    error = (await shop.call("PUT", "products/sku", {"title": "x", **fields}, 422))["error"]
    assert error["param"] == param
    assert words in error["message"] and error["message"].startswith(f"{param}: ")


async def test_a_body_without_a_title_is_refused(shop: Shop) -> None:
    assert (await shop.call("PUT", "products/sku", {"price": 1}, 422))["error"]["param"] == "title"


async def test_ids_are_the_shops_own(shop: Shop) -> None:
    for id in ("a b", "ü", "50%", "A?b=c#d", "x" * 128):
        assert (await shop.put(id))["id"] == id
        assert (await shop.call("GET", f"products/{quote(id, safe='')}"))["title"] == id
    for id in ("x" * 129, "a\nb", " a"):
        await shop.put(id, status=404)


async def test_a_search_gives_scores_and_a_list_pages(shop: Shop) -> None:
    for size, price in (("S", 10), ("M", 20), ("L", 30)):
        attributes = {"colour": "red", "size": size}
        await shop.put(f"tee-{size}", title="Red T-shirt", price=price, attributes=attributes, group_id="tee")
    await shop.put("cap", title="Red cap", price=15, stock=0, category="Hats > Caps")
    found = await shop.call("GET", "products?q=do you have a red t-shirt in size m?")
    assert [one["id"] for one in found["data"]] == ["tee-M"]
    assert found["data"][0]["score"] > 0 and found["total"] == 1 and not found["has_more"]
    page = await shop.call("GET", "products?sort=-price&limit=2")
    assert [one["id"] for one in page["data"]] == ["tee-L", "tee-M"]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", "tee-L", "tee-M", True)
    assert "score" not in page["data"][0]
    page = await shop.call("GET", "products?sort=-price&limit=2&after=tee-M")
    assert [one["id"] for one in page["data"]] == ["cap", "tee-S"] and not page["has_more"]
    for query, ids in {
        "attr.size=S&attr.size=L": ["tee-L", "tee-S"],
        "attr.Colour=RED&max_price=19.5": ["tee-S"],
        "min_price=30": ["tee-L"],
        "in_stock=false": ["cap"],
        "category=Hats": ["cap"],
        "group_id=tee&attr.size=M": ["tee-M"],
        "q=red&sort=price": ["tee-S", "cap", "tee-M", "tee-L"],
    }.items():
        assert [one["id"] for one in (await shop.call("GET", f"products?{query}"))["data"]] == ids, query


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("min_price=cheap", "min_price"),
        ("max_price=-1", "max_price"),
        ("min_price=5&max_price=4", "min_price"),
        ("currency=dollar", "currency"),
        ("sort=best", "sort"),
        ("in_stock=maybe", "in_stock"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("attr.=x", "attr."),
        ("attr.colour=", "attr.colour"),
        ("q=a%00b", "q"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_its_name(shop: Shop, query: str, param: str) -> None:
    assert (await shop.call("GET", f"products?{query}", status=422))["error"]["param"] == param


async def test_recommendations_structure_and_offers(shop: Shop) -> None:
    await shop.put("boots", title="Hiking boots", price=100, currency="EUR", category="Shoes", stock=1)
    await shop.put("shoes", title="Hiking shoes", price=80, currency="EUR", category="Shoes", stock=0)
    found = await shop.call("GET", "products/boots/recommendations?limit=5")
    assert [one["id"] for one in found["data"]] == ["shoes"]
    structure = await shop.call("GET", "structure")
    assert structure == {
        "object": "catalog.structure",
        "total": 2,
        "categories": [{"name": "Shoes", "products": 2}],
        "attributes": {},
        "currencies": ["EUR"],
    }
    offers = await shop.call("POST", "offers", {"ids": ["shoes", "nothing"]})
    common = {"object": "offer", "currency": "EUR", "available": None}
    assert offers["data"] == [{"id": "shoes", "price": 80, "stock": 0, **common}]
    await shop.call("POST", "offers", {"ids": []}, 422)
    await shop.call("POST", "offers", {"ids": ["x"] * 101}, 422)


async def test_an_import_keeps_what_is_right_and_names_what_is_not(shop: Shop) -> None:
    await shop.put("a")
    lines = [
        json.dumps({"id": "a", "title": "A again", "price": "1.10"}),
        "{not json",
        "",
        json.dumps({"id": "b", "title": "B", "price": "$2"}),
        json.dumps({"id": "c", "title": "C"}),
        json.dumps(["no product"]),
        json.dumps({"title": "without an id"}),
    ]
    told = await shop.call("POST", "products/import", content="\n".join(lines))
    assert (told["created"], told["replaced"], told["failed"]) == (1, 1, 4)
    assert [(one["line"], one["id"], one["param"]) for one in told["errors"]] == [
        *((2, None, None), (4, "b", "price"), (6, None, None), (7, None, "id"))
    ]
    assert (await shop.call("GET", "products/a"))["price"] == 1.1
    told = await shop.call("POST", "products/import", [{"id": "d", "title": "D"}, {"id": "e", "title": 5}])
    assert (told["created"], told["failed"], told["errors"][0]["line"]) == (1, 1, 2)
    assert len((await shop.call("GET", "products"))["data"]) == 3
    await shop.call("POST", "products/import", content="", status=400)


async def test_changes_are_in_the_audit_log(shop: Shop, database_url: str) -> None:
    await shop.put("a")
    await shop.call("POST", "products/import", [{"id": "b", "title": "B"}, {"id": "c", "title": "C"}])
    await shop.call("DELETE", "products/a")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT action, subject, detail->>'products' FROM brain.audit WHERE tenant_id = %s ORDER BY id",
            [shop.tenant],
        ).fetchall()
    assert rows == [("product.changed", "a", "1"), ("product.changed", None, "2"), ("product.deleted", "a", "1")]


async def test_without_a_catalogue_the_answer_says_so(shop: Shop) -> None:
    shop.world.parts.catalogue = None
    assert (await shop.call("GET", "products", status=503))["error"]["message"] == "products are not kept here"
