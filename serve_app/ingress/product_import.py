"""Many products in one body: a JSON array, or a product a line. What is right is stored, what is not is named."""

from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from domain.given_products import given_product
from domain.products import Product, ProductStore
from domain.tenant import Caller
from serve_app.ingress.bodies import parse
from serve_app.ingress.errors import Problem, invalid

MOST_TOLD = 100
BATCH = 500


@dataclass
class Import:
    """What was done so far."""

    created: int = 0
    replaced: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def wrong(self, line: int, id: str | None, param: str | None, message: str) -> None:
        self.failed += 1
        if len(self.errors) < MOST_TOLD:
            self.errors.append({"line": line, "id": id, "param": param, "message": message})

    def json(self) -> dict[str, Any]:
        return {
            "object": "catalog.import",
            "created": self.created,
            "replaced": self.replaced,
            "failed": self.failed,
            "errors": self.errors,
        }


async def import_products(store: ProductStore, who: Caller, raw: bytes) -> Import:
    """Raises `Problem` 400 where the body is neither an array nor lines of JSON."""
    done, products = Import(), dict[str, Product]()
    for line, value in _values(raw, done):
        try:
            one = given_product(value)
        except ValidationError as error:
            problem, id = invalid(error, 422), value.get("id") if isinstance(value, dict) else None
            done.wrong(line, id if isinstance(id, str) else None, problem.param, str(problem))
            continue
        products[one.id] = one
    given = list(products.values())
    for start in range(0, len(given), BATCH):
        part = given[start : start + BATCH]
        new = await store.put(who.tenant, part, who)
        done.created += new
        done.replaced += len(part) - new
    return done


def _values(raw: bytes, done: Import) -> list[tuple[int, Any]]:
    if raw.lstrip()[:1] == b"[":
        return list(enumerate(parse(raw), 1))
    found = []
    for number, line in enumerate(raw.splitlines(), 1):
        if line.strip():
            try:
                found.append((number, orjson.loads(line)))
            except orjson.JSONDecodeError as error:
                done.wrong(number, None, None, f"is not valid JSON: {error.msg}")
    if not found:
        raise Problem(400, "the body must be a JSON array of products, or a product a line", code="invalid_json")
    return found
