"""The contract of shops' services: the document is one, the reference server keeps it, and so do our questions."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import pytest
import yaml
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator

from adapters.catalog import contract, questions
from adapters.catalog.questions import Question
from domain.products import ProductQuery
from tests.doubles.catalogue_service import Shop, serving_catalogues
from tests.storage.catalogue_world import SHOP

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "catalogue-service.yaml").read_text(encoding="utf-8")
)
QUERY = ProductQuery(
    "shirt & cotton",
    category="Clothing",
    attributes={"colour": ["red", "blue"]},
    min_price=Decimal("1.50"),
    max_price=Decimal(99),
    currency="USD",
    in_stock=True,
    sort="price",
    limit=101,
)
QUESTIONS = {
    "product": questions.of_product("tee-red-m"),
    "products": questions.of_products(["tee-red-m", "nothing"]),
    "search": questions.search(QUERY),
    "structure": questions.STRUCTURE,
    "offers": questions.of_offers(["tee-red-m", "voucher"]),
    "recommendations": questions.like("tee-red-m", 5),
}


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for one in node.values():
            yield from refs(one)
    elif isinstance(node, list):
        for one in node:
            yield from refs(one)


def resolved(ref: str) -> Any:
    found = DOCUMENT
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


def operation(name: str) -> tuple[str, str, dict[str, Any]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, one in methods.items():
            if one["operationId"] == name:
                return method.upper(), path, one
    raise KeyError(name)


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_the_document_is_openapi_and_every_reference_leads_somewhere() -> None:
    assert OpenAPI.model_validate(DOCUMENT).openapi == "3.1.0"
    found = set(refs(DOCUMENT))
    assert len(found) > 15 and all(resolved(one) for one in found)
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert {operation(name)[2]["operationId"] for name in QUESTIONS} == set(QUESTIONS)


@pytest.mark.parametrize(
    ("schema", "model"),
    [
        ("Product", contract.ServedProduct),
        ("ProductList", contract.ServedProducts),
        ("Offer", contract.ServedOffer),
        ("OfferList", contract.ServedOffers),
        ("Structure", contract.ServedStructure),
    ],
)
def test_the_document_has_the_fields_that_are_read(schema: str, model: Any) -> None:
    told = DOCUMENT["components"]["schemas"][schema]
    assert set(told["properties"]) == set(model.model_fields)
    assert set(told["required"]) == {name for name, one in model.model_fields.items() if one.is_required()}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_is_in_the_document(name: str) -> None:
    question = QUESTIONS[name]
    method, path, told = operation(name)
    assert method == ("GET" if question.body is None else "POST")
    split = urlsplit(question.path)
    assert [part for part, place in zip(split.path.split("/"), path.split("/"), strict=True) if place != "{id}"] == [
        place for place in path.split("/") if place != "{id}"
    ]
    parameters = [resolved(one["$ref"]) if "$ref" in one else one for one in told.get("parameters", [])]
    names = {one["name"] for one in parameters if one["in"] == "query"}
    needed = {one["name"] for one in parameters if one["in"] == "query" and one.get("required")}
    asked = {key.partition(".")[0] for key, _ in parse_qsl(split.query)}
    assert needed <= asked <= names
    if question.body is not None:
        schema = resolved(told["requestBody"]["$ref"])["content"]["application/json"]["schema"]
        validator(schema).validate(json.loads(question.body))


def test_a_question_says_all_of_the_query() -> None:
    assert parse_qsl(urlsplit(questions.search(QUERY).path).query) == [
        ("q", "shirt & cotton"),
        ("category", "Clothing"),
        ("attr.colour", "red"),
        ("attr.colour", "blue"),
        ("min_price", "1.50"),
        ("max_price", "99"),
        ("currency", "USD"),
        ("in_stock", "true"),
        ("sort", "price"),
        ("limit", "101"),
    ]
    odd = questions.of_product("a?b=c#d%2e ü")
    assert "?" not in odd.path and unquote(odd.path) == "/products/a?b=c#d%2e ü"
    assert Question("/a", b"").key != Question("/a", b"x").key != Question("/b", b"x").key


@pytest.mark.parametrize("name", QUESTIONS)
async def test_the_reference_service_answers_by_the_document(name: str) -> None:
    async with serving_catalogues() as service, aiohttp.ClientSession() as http:
        service.shops["shop"] = shop = Shop(cache="max-age=5")
        shop.put(*SHOP)
        question = QUESTIONS[name]
        method, _, told = operation(name)
        async with http.request(method, service.url("shop") + question.path, data=question.body) as answer:
            assert answer.status == 200
            body = await answer.json()
        validator(told["responses"]["200"]["content"]["application/json"]["schema"]).validate(body)
        assert body.get("data", True), "an answer with nothing in it would prove nothing"
        if "404" in told["responses"]:
            unknown = question.path.replace("tee-red-m", "nothing") + ("&after=nothing" if name == "search" else "")
            async with http.request(method, service.url("shop") + unknown) as answer:
                assert answer.status == 404
                validator(DOCUMENT["components"]["schemas"]["Error"]).validate(await answer.json())


WRONG = [
    {"id": "a"},
    {"id": "a", "title": "A", "price": -1},
    {"id": "a", "title": "A", "secret": "x"},
    {"id": "a", "title": 3},
    {"id": "a/b", "title": "A"},
    {"id": "a", "title": "A", "stock": 1.5},
    {"id": "a", "title": "A", "url": "javascript:alert(1)"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_refused_the_document_refuses_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(contract.WrongAnswer):
        contract.found(json.dumps({"data": [wrong]}).encode())
    assert not validator(DOCUMENT["components"]["schemas"]["ProductList"]).is_valid({"data": [wrong]})
