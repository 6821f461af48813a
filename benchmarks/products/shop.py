"""Catalogues to ask: the shop of tau2-bench, and a made-up one of any size."""

import json
import os
import random
from decimal import Decimal
from pathlib import Path

from domain.products import Product

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
TAU2 = DATA / "tau2_retail" / "db.json"
_KINDS = {
    "Lamps": ("Desk lamp", "Floor lamp", "Reading lamp", "Lantern"),
    "Shirts": ("T-shirt", "Linen shirt", "Polo shirt", "Blouse"),
    "Shoes": ("Running shoe", "Hiking boot", "Sandal", "Sneaker"),
    "Bags": ("Backpack", "Tote bag", "Suitcase", "Messenger bag"),
    "Kitchen": ("Kettle", "Toaster", "Coffee grinder", "Frying pan"),
}
_NAMES = ("Aurora", "Birke", "Canto", "Delta", "Elm", "Fjord", "Garnet", "Halo", "Iris", "Juno", "Krona", "Linden")
_COLOURS = ("black", "white", "red", "blue", "green", "yellow", "grey", "brown")
_SIZES = ("XS", "S", "M", "L", "XL")
_MATERIALS = ("cotton", "linen", "leather", "steel", "glass", "oak")


def tau2(path: Path = TAU2) -> list[Product]:
    """Each variant is a product of its article's group, in the category that is called like the article: the data has
    no categories."""
    articles = json.loads(path.read_text())["products"].values()
    return [
        Product(
            id=variant["item_id"],
            title=article["name"],
            category=article["name"],
            group_id=article["product_id"],
            price=Decimal(str(variant["price"])),
            currency="USD",
            available=variant["available"],
            attributes={name.lower(): value for name, value in variant["options"].items()},
        )
        for article in articles
        for variant in article["variants"].values()
    ]


def made_up(count: int, seed: int = 1) -> list[Product]:
    """Articles in five variants each."""
    source = random.Random(seed)
    products = []
    for n in range(count):
        article = n // 5
        chosen = random.Random(f"{seed}/{article}")
        category = chosen.choice(list(_KINDS))
        title = f"{chosen.choice(_NAMES)} {chosen.choice(_KINDS[category])} {article}"
        attributes = {"colour": chosen.choice(_COLOURS), "size": _SIZES[n % 5], "material": chosen.choice(_MATERIALS)}
        products.append(
            Product(
                id=f"P-{n:06}",
                title=title,
                description=f"A {attributes['material']} piece of our {category.lower()}, made to last.",
                url=f"https://shop.example/p/{n}",
                category=category,
                group_id=f"G-{article:05}",
                price=Decimal(source.randrange(500, 50_000)) / 100,
                currency="USD",
                stock=source.randrange(0, 30),
                attributes=attributes,
            )
        )
    return products


def asked_of(products: list[Product], count: int, seed: int = 2) -> list[str]:
    """Questions that a shop like the made-up one is asked."""
    source = random.Random(seed)
    forms = (
        "Do you have {colour} {category} in size {size} under {price} dollars?",
        "How much is the {title} in size {size}?",
        "Is the {title} in stock?",
        "What is the cheapest of your {category} made of {material}?",
        "I am looking for a {material} {title}",
    )
    texts = []
    for n in range(count):
        one = source.choice(products)
        texts.append(
            forms[n % len(forms)].format(
                **one.attributes,
                title=one.title,
                category=(one.category or "").lower(),
                price=source.randrange(20, 400),
            )
        )
    return texts
