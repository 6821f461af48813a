"""What a shop's service answers (docs/catalogue-service.yaml), checked: nothing of it is believed before."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from domain.given_products import Currency, GivenWithId, Price, ProductId
from domain.products import CatalogueUnavailable, FoundProduct, FoundProducts, Offer, Product, Structure

MOST_VALUES = 200  # of an attribute
T = TypeVar("T")
Read = Callable[[bytes], T]
Stock = Annotated[int, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]
Value = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class WrongAnswer(CatalogueUnavailable):
    """The catalogue's service gave an answer that its contract does not allow."""

    @classmethod
    def at(cls, where: str, what: str) -> "WrongAnswer":
        return cls(f"the catalogue's service gave an answer that its contract does not allow, {where[:100]!r}: {what}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ServedProduct(GivenWithId):
    """`score`: of a search. Higher is better, comparable within one answer."""

    object: Literal["product"] = "product"
    updated_at: AwareDatetime | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @property
    def whole(self) -> Product:
        return Product(**self.model_dump(exclude={"score"}))


class ServedProducts(_Strict):
    """`total`: how many fit in all. `has_more`: whether a page follows."""

    object: Literal["list"] = "list"
    data: Annotated[list[ServedProduct], Field(max_length=200)]
    total: Annotated[int, Field(ge=0)] | None = None
    has_more: bool = False


class ServedOffer(_Strict):
    id: ProductId
    object: Literal["offer"] = "offer"
    price: Price | None = None
    currency: Currency | None = None
    stock: Stock | None = None
    available: bool | None = None


class ServedOffers(_Strict):
    object: Literal["list"] = "list"
    data: Annotated[list[ServedOffer], Field(max_length=200)]


class ServedCategory(_Strict):
    name: Name
    products: Annotated[int, Field(ge=0)]


class ServedStructure(_Strict):
    object: Literal["catalog.structure"] = "catalog.structure"
    total: Annotated[int, Field(ge=0)]
    categories: Annotated[list[ServedCategory], Field(max_length=1000)] = []
    attributes: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], list[Value]], Field(max_length=200)
    ] = {}
    currencies: Annotated[list[Currency], Field(max_length=200)] = []


class ServedError(BaseModel):
    """Of an error the code alone matters; it may tell more."""

    class Error(BaseModel):
        code: str

    error: Error


M = TypeVar("M", bound=BaseModel)


def _read(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise WrongAnswer.at(where, first["type"]) from None


def product(id: str) -> Read[Product]:
    """Reads the product of this id."""

    def read(body: bytes) -> Product:
        found = _read(ServedProduct, body).whole
        if found.id != id:
            raise WrongAnswer.at("id", "of another product than was asked for")
        return found

    return read


def products(body: bytes) -> list[Product]:
    return [one.whole for one in _read(ServedProducts, body).data]


def found(body: bytes) -> FoundProducts:
    """In the service's order, each once. Where it gives no scores, the places give them."""
    served = _read(ServedProducts, body)
    once = {one.id: one for one in reversed(served.data)}
    items = [once[id] for id in dict.fromkeys(one.id for one in served.data)]
    scored = all(one.score is not None for one in items)
    return FoundProducts(
        tuple(
            FoundProduct(one.whole, one.score if scored and one.score is not None else 1 / place)
            for place, one in enumerate(items, 1)
        ),
        served.total,
    )


def offers(body: bytes) -> list[Offer]:
    served = _read(ServedOffers, body).data
    return [Offer(one.id, one.price, one.currency, one.stock, one.available) for one in served]


def structure(body: bytes) -> Structure:
    served = _read(ServedStructure, body)
    return Structure(
        served.total,
        {one.name: one.products for one in served.categories},
        {name.lower(): tuple(values[:MOST_VALUES]) for name, values in served.attributes.items() if values},
        tuple(served.currencies),
    )


def error_code(body: bytes) -> str | None:
    try:
        return ServedError.model_validate_json(body).error.code
    except ValidationError:
        return None


def in_order(ids: Sequence[str], there: dict[str, T]) -> list[T]:
    """Those of the ids that there are, each once."""
    return [there[id] for id in dict.fromkeys(ids) if id in there]
