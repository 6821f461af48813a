"""A small shop that readings and answers are tested on."""

from decimal import Decimal

from domain.product_lexicon import Lexicon
from domain.products import Product
from tests.doubles.catalogue import structure_of


def product(id, title, price="10.00", *, category=None, group=None, stock=5, currency="USD", **attributes):
    return Product(
        id=id,
        title=title,
        url=f"https://shop.example/{id}",
        price=None if price is None else Decimal(price),
        currency=currency,
        stock=stock,
        category=category,
        group_id=group,
        attributes={name.replace("_", " "): value for name, value in attributes.items()},
    )


SHOP = [
    product(
        "tee-red-m", "Nordic T-shirt", "24.90", category="Clothing > T-shirts", group="tee", colour="red", size="M"
    ),
    product(
        "tee-red-l", "Nordic T-shirt", "26.90", category="Clothing > T-shirts", group="tee", colour="red", size="L"
    ),
    product(
        "tee-grey-m",
        "Nordic T-shirt",
        "24.90",
        category="Clothing > T-shirts",
        group="tee",
        stock=0,
        colour="grey",
        size="M",
    ),
    product(
        "lamp-1", "Aurora desk lamp", "89.00", category="Lamps", shade_colour="red", base_colour="black", dimmable="yes"
    ),
    product(
        "lamp-2", "Borea floor lamp", "149.00", category="Lamps", shade_colour="white", base_colour="red", dimmable="no"
    ),
    product("disk-1", "Solid disk", "59.50", category="Storage", capacity="256GB SSD", size="2.5 inch"),
    product("disk-2", "Solid disk", "99.50", category="Storage", capacity="512GB SSD", size="2.5 inch", stock=0),
]
LEXICON = Lexicon(structure_of(SHOP))
