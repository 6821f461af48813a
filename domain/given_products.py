"""A product as a shop gives it, checked: what is stored can be found, shown, and bought at the price that was given."""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from domain.products import Product

DEAREST = Decimal("99999999999.9999")
"""Fifteen digits: such a number is the same as JSON's, which most programs read as a double (RFC 8259, section 6)."""
DIGITS = 4  # of a price, behind the point
MOST_ATTRIBUTES = 64
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")


def is_product_id(id: str) -> bool:
    """Whether a shop may call a product this: 1 to 128 printable characters without `/`."""
    return 1 <= len(id) <= 128 and id.isprintable() and "/" not in id and id.strip() == id and id not in (".", "..")


def _price(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number, or a number as text")
    written = str(value).strip()
    if not _NUMBER.fullmatch(written):
        raise ValueError(f"{written[:40]!r} is no number: write 19.99, and the currency in `currency`")
    try:
        price = Decimal(written)
    except InvalidOperation:
        raise ValueError("is no number") from None
    if price < 0:
        raise ValueError("must not be negative")
    if price > DEAREST:
        raise ValueError(f"must be at most {DEAREST}")
    if price != round(price, DIGITS):
        raise ValueError(f"must have at most {DIGITS} digits behind the point")
    exponent = price.as_tuple().exponent
    return round(price, DIGITS).normalize() if isinstance(exponent, int) and exponent < -DIGITS else abs(price)


def _currency(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}", value):
        raise ValueError("must be three letters as in ISO 4217, such as USD")
    return value.upper()


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.netloc or not value.isprintable() or " " in value:
        raise ValueError("must be a URL that begins with http:// or https://")
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the character NUL")
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value.strip()


def _attributes(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and values")
    if len(value) > MOST_ATTRIBUTES:
        raise ValueError(f"must be at most {MOST_ATTRIBUTES}")
    found: dict[str, str] = {}
    for name, one in value.items():
        name = str(name).strip().lower()
        if isinstance(one, bool):
            one = "yes" if one else "no"
        if not isinstance(one, str | int | float):
            raise ValueError(f"{name!r} must have a text or a number")
        said = _text(str(one)).strip()
        if not name or len(name) > 64 or not name.isprintable():
            raise ValueError("names must have 1 to 64 printable characters")
        if not said or len(said) > 500:
            raise ValueError(f"{name!r} must have 1 to 500 characters")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = said
    return found


def _id(value: str) -> str:
    if not is_product_id(value):
        raise ValueError("must have 1 to 128 printable characters, without `/` and without blanks around them")
    return value


Text = AfterValidator(_text)
Price = Annotated[Decimal, BeforeValidator(_price)]
Currency = Annotated[str, Field(max_length=3), AfterValidator(_currency)]
ProductId = Annotated[str, AfterValidator(_id)]


class GivenProduct(BaseModel):
    """`price`: a number, or one as text, in `currency`; exact, with up to four digits behind the point. `stock`: pieces
    at hand; where nobody counts them `available` says whether there are any. `category`: a path where it has levels,
    `Clothing > Shirts`. `group_id`: the same for all variants of one article."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: Annotated[str, Field(min_length=1, max_length=500), Text, AfterValidator(_filled)]
    description: Annotated[str, Field(max_length=20_000), Text] | None = None
    url: Annotated[str, Field(max_length=2000), Text, AfterValidator(_url)] | None = None
    price: Price | None = None
    currency: Currency | None = None
    stock: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    available: bool | None = None
    category: Annotated[str, Field(min_length=1, max_length=300), Text, AfterValidator(_filled)] | None = None
    group_id: Annotated[str, Field(min_length=1, max_length=128), Text] | None = None
    attributes: Annotated[dict[str, str], BeforeValidator(_attributes)] = {}

    def product(self, id: str) -> Product:
        return Product(id=id, **self.model_dump())


class GivenWithId(GivenProduct):
    """A product of an import."""

    id: ProductId

    @property
    def whole(self) -> Product:
        return Product(**self.model_dump())


def given_product(value: Any) -> Product:
    """Raises pydantic's `ValidationError`."""
    return GivenWithId.model_validate(value).whole
