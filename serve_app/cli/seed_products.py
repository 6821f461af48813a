"""The products of the demonstration's outdoor shop: articles and their variants, as a shop would hand them out."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from domain.products import Product

SHOP = "https://fjellvik.example/p"


@dataclass(frozen=True, slots=True)
class Article:
    """`sizes` and the pieces at hand of each. `attributes`: of all variants. `named`: what `sizes` are called."""

    id: str
    title: str
    price: str
    category: str
    description: str
    sizes: dict[str, int]
    attributes: dict[str, str]
    named: str = "size"


_TEE = "Clothing > T-shirts"
_CLASSIC = "A straight cut, double seams, washable at 40 °C. Heavy cotton that keeps its shape."
_ARTICLES = (
    Article(
        "tee-classic-red",
        "Classic T-shirt, red",
        "24.90",
        _TEE,
        _CLASSIC,
        {"S": 12, "M": 7, "L": 0, "XL": 3},
        {"colour": "red", "material": "cotton"},
    ),
    Article(
        "tee-classic-blue",
        "Classic T-shirt, blue",
        "24.90",
        _TEE,
        _CLASSIC,
        {"S": 4, "M": 9, "L": 11},
        {"colour": "blue", "material": "cotton"},
    ),
    Article(
        "tee-classic-black",
        "Classic T-shirt, black",
        "24.90",
        _TEE,
        _CLASSIC,
        {"S": 0, "M": 2, "L": 6},
        {"colour": "black", "material": "cotton"},
    ),
    Article(
        "tee-organic-red",
        "Organic T-shirt, red",
        "34.50",
        _TEE,
        "Certified organic cotton, dyed without heavy metals. A loose cut.",
        {"S": 5, "M": 8, "L": 2},
        {"colour": "red", "material": "organic cotton"},
    ),
    Article(
        "tee-merino-red",
        "Merino T-shirt, red",
        "59.00",
        _TEE,
        "Fine merino wool: warm when it is cold, cool when it is warm, and does not smell after three days.",
        {"S": 3, "M": 4, "L": 4},
        {"colour": "red", "material": "merino wool"},
    ),
    Article(
        "jacket-rain-yellow",
        "Rain jacket Bergen, yellow",
        "149.00",
        "Clothing > Jackets",
        "Waterproof to 20,000 mm, with taped seams and a hood that goes over a helmet.",
        {"S": 2, "M": 5, "L": 1},
        {"colour": "yellow", "material": "polyamide", "waterproof": "yes"},
    ),
    Article(
        "jacket-rain-navy",
        "Rain jacket Bergen, navy",
        "149.00",
        "Clothing > Jackets",
        "Waterproof to 20,000 mm, with taped seams and a hood that goes over a helmet.",
        {"S": 6, "M": 0, "L": 4},
        {"colour": "navy", "material": "polyamide", "waterproof": "yes"},
    ),
    Article(
        "fleece-grey",
        "Fleece jacket Voss, grey",
        "79.95",
        "Clothing > Jackets",
        "A warm second layer of recycled polyester with two pockets for hands.",
        {"S": 3, "M": 3, "L": 8},
        {"colour": "grey", "material": "recycled polyester"},
    ),
    Article(
        "trousers-hiking-olive",
        "Hiking trousers, olive",
        "89.00",
        "Clothing > Trousers",
        "Stretch at the knees, a pocket for a map, dry within an hour.",
        {"30": 4, "32": 6, "34": 2},
        {"colour": "olive", "material": "polyamide"},
    ),
    Article(
        "shorts-trail-black",
        "Trail shorts, black",
        "45.00",
        "Clothing > Trousers",
        "Light shorts for running and hiking, with a pocket that closes.",
        {"S": 7, "M": 5, "L": 0},
        {"colour": "black", "material": "polyester"},
    ),
    Article(
        "socks-merino-grey",
        "Merino hiking socks, grey",
        "18.50",
        "Clothing > Socks",
        "Padded at heel and toe; no seam that rubs.",
        {"36-38": 20, "39-41": 14, "42-44": 9},
        {"colour": "grey", "material": "merino wool"},
    ),
    Article(
        "boots-hiking-brown",
        "Hiking boots Rondane, brown",
        "189.00",
        "Shoes > Boots",
        "Waterproof leather boots for rough paths, soles that can be replaced.",
        {"40": 2, "41": 3, "42": 1, "43": 4, "44": 0},
        {"colour": "brown", "material": "leather", "waterproof": "yes"},
    ),
    Article(
        "shoes-trail-green",
        "Trail running shoes, green",
        "129.00",
        "Shoes > Running shoes",
        "Grip on wet rock, eight millimetres from heel to toe.",
        {"40": 6, "42": 5, "44": 3},
        {"colour": "green", "material": "mesh", "waterproof": "no"},
    ),
    Article(
        "gloves-wool-black",
        "Wool gloves, black",
        "29.00",
        "Clothing > Accessories",
        "Boiled wool with fingertips that a telephone feels.",
        {"S": 8, "M": 8, "L": 8},
        {"colour": "black", "material": "wool"},
    ),
    Article(
        "cap",
        "Cap with a soft brim",
        "22.00",
        "Clothing > Accessories",
        "Keeps the sun out of the eyes and folds into a pocket.",
        {"red": 10, "black": 4, "green": 0},
        {"material": "cotton"},
        "colour",
    ),
    Article(
        "beanie",
        "Knitted beanie",
        "27.50",
        "Clothing > Accessories",
        "Thick knit of merino wool for winter days.",
        {"red": 6, "grey": 9},
        {"material": "merino wool"},
        "colour",
    ),
    Article(
        "backpack",
        "Backpack Tur",
        "119.00",
        "Outdoor > Backpacks",
        "A frame that carries on the hips, a rain cover in the bottom pocket.",
        {"20 l": 4, "45 l": 2},
        {"colour": "blue"},
        "volume",
    ),
    Article(
        "tent",
        "Dome tent Lofoten",
        "349.00",
        "Outdoor > Tents",
        "Stands in ten minutes, in wind too. Two entrances.",
        {"2": 3, "4": 1},
        {"colour": "green", "waterproof": "yes"},
        "persons",
    ),
    Article(
        "sleeping-bag",
        "Sleeping bag Natt",
        "159.00",
        "Outdoor > Sleeping",
        "Comfortable down to -5 °C; synthetic filling, so it stays warm when it is damp.",
        {"regular": 5, "long": 0},
        {"colour": "orange"},
        "length",
    ),
    Article(
        "bottle-steel",
        "Steel bottle",
        "19.00",
        "Outdoor > Kitchen",
        "Single wall, so that it can stand on a fire.",
        {"0.5 l": 30, "1 l": 16},
        {"material": "steel"},
        "volume",
    ),
)
_PRICES = {"tee-classic-red-xl": "26.90", "backpack-45-l": "169.00", "tent-4": "499.00", "bottle-steel-1-l": "25.00"}
"""Of variants that do not cost what the others do."""


def _single(id: str, title: str, price: str | None, category: str, description: str, **fields: object) -> Product:
    return Product.model_validate(
        {
            "id": id,
            "title": title,
            "description": description,
            "url": f"{SHOP}/{id}",
            "price": price,
            "currency": "USD" if price else None,
            "category": category,
            **fields,
        }
    )


_SINGLE = (
    _single("mat-sleeping", "Sleeping mat", "64.00", "Outdoor > Sleeping", "Inflates itself; 5 cm thick.", stock=7),
    _single("lamp-head", "Head lamp, 300 lumen", "39.90", "Outdoor > Light", "Charges by USB-C.", stock=12),
    _single("stove-gas", "Gas stove", "54.00", "Outdoor > Kitchen", "Folds to the size of a fist.", stock=4),
    _single("gas-230", "Gas cartridge, 230 g", "7.90", "Outdoor > Kitchen", "Fits the gas stove.", stock=40),
    _single("voucher", "Gift voucher", "50.00", "Gifts", "Comes by e-mail; valid for three years.", available=True),
    _single("repair", "Repair of clothes and tents", None, "Services", "Ask us what it costs.", available=True),
)


def _variants(article: Article) -> Iterator[Product]:
    for size, stock in article.sizes.items():
        id = f"{article.id}-{size.lower().replace(' ', '-')}"
        yield Product(
            id=id,
            title=article.title,
            description=article.description,
            url=f"{SHOP}/{article.id}?variant={id}",
            price=Decimal(_PRICES.get(id, article.price)),
            currency="USD",
            stock=stock,
            category=article.category,
            group_id=article.id,
            attributes={**article.attributes, article.named: size},
        )


PRODUCTS: tuple[Product, ...] = (*(one for article in _ARTICLES for one in _variants(article)), *_SINGLE)

FINDS: dict[str, str] = {
    "q=red T-shirt&attr.size=M&max_price=50&sort=price": "tee-classic-red-m",
    "q=red T-shirt&min_price=50&attr.size=S": "tee-merino-red-s",
    "q=waterproof hiking boots in size 43": "boots-hiking-brown-43",
    "q=something to sleep on, a mat": "mat-sleeping",
    "category=Clothing > T-shirts&attr.colour=red&in_stock=false": "tee-classic-red-l",
}
"""Queries, and the product that each finds first: what the demonstration is checked by."""
