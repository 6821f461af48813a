"""Products as the API shows them: prices are JSON's numbers, with no more digits than were given."""

from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from domain.products import FoundProduct, Offer, Product, Structure
from serve_app.ingress.shapes import Json, rfc3339


class ProductAnswer(BaseModel):
    """`in_stock`: whether it can be had, null where nobody knows. `score`: of a search, comparable within it only."""

    id: str
    object: Literal["product"] = "product"
    title: str
    description: str | None
    url: str | None
    price: float | None
    currency: str | None
    stock: int | None
    available: bool | None
    in_stock: bool | None
    category: str | None
    group_id: str | None
    attributes: dict[str, str]
    updated_at: str | None
    score: float | None = None


class ProductList(BaseModel):
    """`total`: how many fit in all, where they are counted. `stale`: seconds since it was true."""

    object: Literal["list"] = "list"
    data: list[ProductAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool
    total: int | None = None
    stale: float = 0


class DeletedProduct(BaseModel):
    id: str
    object: Literal["product"] = "product"
    deleted: Literal[True] = True


class OfferAnswer(BaseModel):
    id: str
    object: Literal["offer"] = "offer"
    price: float | None
    currency: str | None
    stock: int | None
    available: bool | None


class OfferList(BaseModel):
    object: Literal["list"] = "list"
    data: list[OfferAnswer]


class CategoryAnswer(BaseModel):
    name: str
    products: int


class StructureAnswer(BaseModel):
    object: Literal["catalog.structure"] = "catalog.structure"
    total: int
    categories: list[CategoryAnswer]
    attributes: dict[str, list[str]]
    currencies: list[str]


class WrongLine(BaseModel):
    """`line`: of JSON lines, or the place in the array, from 1 on."""

    line: int
    id: str | None
    param: str | None
    message: str


class Imported(BaseModel):
    """`created`, `replaced`: products stored. `failed`: lines that were not, of which `errors` names the first 100."""

    object: Literal["catalog.import"] = "catalog.import"
    created: int
    replaced: int
    failed: int
    errors: list[WrongLine]


def product_json(product: Product, score: float | None = None) -> Json:
    return {
        "id": product.id,
        "object": "product",
        "title": product.title,
        "description": product.description,
        "url": product.url,
        "price": number(product.price),
        "currency": product.currency,
        "stock": product.stock,
        "available": product.available,
        "in_stock": product.in_stock,
        "category": product.category,
        "group_id": product.group_id,
        "attributes": product.attributes,
        "updated_at": None if product.updated_at is None else rfc3339(product.updated_at),
        **({} if score is None else {"score": round(score, 6)}),
    }


def found_json(found: FoundProduct) -> Json:
    return product_json(found.product, found.score)


def offer_json(offer: Offer) -> Json:
    return {
        "id": offer.product_id,
        "object": "offer",
        "price": number(offer.price),
        "currency": offer.currency,
        "stock": offer.stock,
        "available": offer.available,
    }


def structure_json(structure: Structure) -> dict[str, Any]:
    return {
        "object": "catalog.structure",
        "total": structure.total,
        "categories": [{"name": name, "products": n} for name, n in structure.categories.items()],
        "attributes": {name: list(values) for name, values in structure.attributes.items()},
        "currencies": list(structure.currencies),
    }


def number(price: Decimal | None) -> float | int | None:
    """The shortest number of JSON that is this one: of up to 15 digits there always is one."""
    if price is None:
        return None
    return int(price) if price == price.to_integral_value() else float(price)
