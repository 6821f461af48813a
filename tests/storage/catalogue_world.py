"""What the contract of catalogues is tested on: a small shop, and a catalogue that has been given it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from domain.products import Product, ProductCatalogue

Put = Callable[[str, Sequence[Product]], Awaitable[Any]]
Delete = Callable[[str, str], Awaitable[Any]]


@dataclass(frozen=True)
class CatalogueWorld:
    """A catalogue under test and two tenants that have nothing in it yet. `put` and `delete` change what is behind it,
    and what they changed is seen by the next question."""

    catalogue: ProductCatalogue
    tenant: str
    other: str
    put: Put
    delete: Delete


def make_product(id: str, title: str = "A thing", price: str | None = "10.00", **fields: Any) -> Product:
    fields.setdefault("currency", "USD" if price is not None else None)
    return Product(id=id, title=title, price=None if price is None else Decimal(price), **fields)


def tee(size: str, colour: str = "red", price: str = "19.99", stock: int | None = 3, **fields: Any) -> Product:
    return make_product(
        f"tee-{colour}-{size.lower()}",
        f"Cotton T-shirt, {colour}",
        price,
        description="Soft organic cotton, made to last.",
        url=f"https://shop.example/tee-{colour}?size={size}",
        stock=stock,
        category="Clothing > Shirts",
        group_id=f"tee-{colour}",
        attributes={"colour": colour, "size": size, "material": "cotton"},
        **fields,
    )


SHOP: tuple[Product, ...] = (
    tee("S"),
    tee("M"),
    tee("L", stock=0),
    tee("M", "blue", "21.50"),
    make_product(
        "shirt-linen",
        "Linen shirt",
        "64.00",
        description="A light shirt for hot days.",
        stock=5,
        category="Clothing > Shirts",
        attributes={"colour": "white", "size": "M", "material": "linen"},
    ),
    make_product(
        "boots-1",
        "Waterproof hiking boots",
        "129.00",
        description="For mountains and mud; red laces.",
        stock=2,
        category="Shoes",
        attributes={"colour": "brown", "size": "42"},
    ),
    make_product("boots-2", "Winter boots", "89.95", stock=0, category="Shoes", attributes={"colour": "black"}),
    make_product("voucher", "Gift voucher", "50.00", available=True, category="Gifts"),
    make_product("tent", "Tent for two", "249.00", currency="EUR", available=False, category="Outdoor"),
    make_product("workshop", "Repair workshop", None, category="Services"),
)
