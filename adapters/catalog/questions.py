"""What a shop's service is asked (docs/catalogue-service.yaml)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import quote, urlencode

from domain.products import ProductQuery

MOST_CHARACTERS = 500  # of a search's words


@dataclass(frozen=True, slots=True)
class Question:
    """`path`: below the service's URL, with the query. With a `body` it is a POST that changes nothing."""

    path: str
    body: bytes | None = None

    @property
    def key(self) -> str:
        return hashlib.sha256(self.path.encode() + b"\0" + (self.body or b"")).hexdigest()[:32]


STRUCTURE = Question("/structure")


def of_product(product_id: str) -> Question:
    return Question(f"/products/{quote(product_id, safe='')}")


def of_products(ids: Sequence[str]) -> Question:
    return Question("/products/lookup", _ids(ids))


def of_offers(ids: Sequence[str]) -> Question:
    return Question("/offers", _ids(ids))


def like(product_id: str, limit: int) -> Question:
    return Question(f"/products/{quote(product_id, safe='')}/recommendations?limit={limit}")


def search(query: ProductQuery) -> Question:
    given: list[tuple[str, str | None]] = [
        ("q", query.text.replace("\0", " ").strip()[:MOST_CHARACTERS] or None),
        ("category", query.category),
        *((f"attr.{name}", one) for name in sorted(query.attributes) for one in query.attributes[name]),
        ("min_price", _amount(query.min_price)),
        ("max_price", _amount(query.max_price)),
        ("currency", query.currency),
        ("in_stock", None if query.in_stock is None else str(query.in_stock).lower()),
        ("group_id", query.group_id),
        ("sort", query.sort),
        ("limit", str(query.limit)),
        ("after", query.after),
    ]
    return Question("/products?" + urlencode([one for one in given if one[1] is not None], quote_via=quote))


def _amount(price: Decimal | None) -> str | None:
    return None if price is None else f"{price:f}"


def _ids(ids: Sequence[str]) -> bytes:
    return json.dumps({"ids": list(dict.fromkeys(ids))}, ensure_ascii=False).encode()
