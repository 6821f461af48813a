"""What a list of products is asked for by, from the query of the URL."""

from decimal import Decimal
from typing import Annotated, TypeVar

from fastapi import Query
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from domain.given_products import MOST_ATTRIBUTES, Currency, Price
from domain.products import ProductQuery, Sort
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import Limit

ATTRIBUTE = "attr."
T = TypeVar("T")
VALUES = 50  # of one attribute
_PRICE: TypeAdapter[Decimal] = TypeAdapter(Price)
_CURRENCY: TypeAdapter[str] = TypeAdapter(Currency)

Words = Annotated[str | None, Query(max_length=2000, description="what is looked for, in anybody's words")]
Category = Annotated[str | None, Query(max_length=300, description="with all below it: `A` holds `A > B`")]
Amount = Annotated[str | None, Query(max_length=40)]
Code = Annotated[str | None, Query(max_length=3)]
Group = Annotated[str | None, Query(max_length=128)]
Order = Annotated[Sort | None, Query(description="`relevance` if `q` is given, else `title`")]
InStock = Annotated[bool | None, Query()]
After = Annotated[str | None, Query(max_length=128)]


def product_query(
    request: Request,
    q: Words = None,
    category: Category = None,
    min_price: Amount = None,
    max_price: Amount = None,
    currency: Code = None,
    in_stock: InStock = None,
    group_id: Group = None,
    sort: Order = None,
    after: After = None,
    limit: Limit = 20,
) -> ProductQuery:
    """Raises `Problem` 422 naming the parameter."""
    for name, value in request.query_params.multi_items():
        if "\0" in value or "\0" in name:
            raise Problem(422, f"{name}: must not contain the character NUL".replace("\0", ""), name.replace("\0", ""))
    low, high = _checked(_PRICE, "min_price", min_price), _checked(_PRICE, "max_price", max_price)
    if low is not None and high is not None and low > high:
        raise Problem(422, "min_price: must not be above `max_price`", "min_price")
    text = q or ""
    chosen: Sort = sort or ("relevance" if text.strip() else "title")
    return ProductQuery(
        text,
        category=category,
        attributes=_attributes(request),
        min_price=low,
        max_price=high,
        currency=_checked(_CURRENCY, "currency", currency),
        in_stock=in_stock,
        group_id=group_id,
        sort=chosen,
        limit=limit,
        after=after,
    )


def _attributes(request: Request) -> dict[str, list[str]]:
    """`attr.colour=red&attr.colour=blue`: one of these values must be the attribute's."""
    found: dict[str, list[str]] = {}
    for parameter, value in request.query_params.multi_items():
        if parameter.startswith(ATTRIBUTE):
            name = parameter.removeprefix(ATTRIBUTE).lower()
            if not name or not value:
                raise Problem(422, f"{parameter}: needs a name and a value", parameter)
            found.setdefault(name, []).append(value)
            if len(found[name]) > VALUES or len(found) > MOST_ATTRIBUTES:
                raise Problem(422, f"{parameter}: is given too often", parameter)
    return found


def _checked(adapter: TypeAdapter[T], name: str, value: str | None) -> T | None:
    if value is None:
        return None
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise Problem(422, f"{name}: {error.errors()[0]['msg']}", name) from None
