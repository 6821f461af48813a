"""What a turn knows of the products that it is about, as plain data: for prompts, the built-in model and the trace.

Plain dicts, because they cross processes of which some may run a version that has no class for them.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypedDict

from domain.context import Material
from domain.product_prices import told
from domain.products import Product

ROW = 600  # bytes of a product in a prompt
DESCRIPTION = 240  # characters of its description there
UNSEEN = "The product catalogue cannot be seen at the moment: nothing is known of products, prices or stock."


class ProductRow(TypedDict):
    """A product as an answer tells it."""

    id: str
    title: str
    url: str | None
    price: Decimal | None
    currency: str | None
    stock: int | None
    in_stock: bool | None
    category: str | None
    group_id: str | None
    attributes: dict[str, str]


class ProductFacts(TypedDict):
    """`kind`: as of `Reading`. `wish`: what was looked for, in words. `rows`: those that fit, or, where none does, the
    `nearest`, which lack `lacking`. `total`, `stocked`: how many fit, and how many of them are in stock, where it is
    known. `attribute`, `values`: what was asked for, with those that are out of stock in `gone`. `sides`: ids of what
    is compared. `lowest`, `highest`: of all that fit.

    `unseen`: the catalogue did not answer in time. `stale`: seconds since what it says was true.
    """

    kind: str
    wish: str
    rows: list[ProductRow]
    nearest: bool
    lacking: list[str]
    total: int | None
    stocked: int | None
    attribute: str | None
    values: list[str]
    gone: list[str]
    sides: list[str]
    lowest: Decimal | None
    highest: Decimal | None
    categories: list[str]
    unseen: bool
    stale: float


def no_facts(kind: str = "list", wish: str = "", unseen: bool = False) -> ProductFacts:
    return ProductFacts(
        kind=kind,
        wish=wish,
        rows=[],
        nearest=False,
        lacking=[],
        total=None,
        stocked=None,
        attribute=None,
        values=[],
        gone=[],
        sides=[],
        lowest=None,
        highest=None,
        categories=[],
        unseen=unseen,
        stale=0.0,
    )


def row_of(product: Product) -> ProductRow:
    return ProductRow(
        id=product.id,
        title=product.title,
        url=product.url,
        price=product.price,
        currency=product.currency,
        stock=product.stock,
        in_stock=product.in_stock,
        category=product.category,
        group_id=product.group_id,
        attributes=dict(product.attributes),
    )


def stock_told(in_stock: bool | None, stock: int | None) -> str:
    if in_stock is None:
        return "stock not known"
    if not in_stock:
        return "out of stock"
    return "in stock" if stock is None else f"in stock ({stock} left)"


def material_of(facts: ProductFacts, products: Sequence[Product]) -> Material:
    """The products as a prompt is told them: a line that says what they are, then a text for each."""
    if facts["unseen"]:
        return Material("products", (UNSEEN,))
    if not products:
        return Material("products", (f"No product of the catalogue fits: {facts['wish']}",))
    return Material("products", (_headed(facts, _line(products[0])), *map(_line, products[1:])))


def citation(product: Product) -> dict[str, str | None]:
    return {"type": "product", "id": product.id, "title": product.title, "url": product.url}


def _headed(facts: ProductFacts, first: str) -> str:
    """The heading goes with the first product: it means nothing alone."""
    if facts["nearest"]:
        head = f"No product fits all of: {facts['wish']}. The nearest ones:"
    elif facts["total"] is not None:
        head = f"{facts['total']} products of the catalogue fit: {facts['wish']}. Of these:"
    else:
        head = f"Products of the catalogue that fit: {facts['wish']}"
    if facts["stale"]:
        head = f"(as of {facts['stale']:.0f} seconds ago) {head}"
    return f"{_cut(head, ROW)}\n{first}"


def _line(product: Product) -> str:
    parts = [f"{product.title} [{product.id}]"]
    parts += [told(product.price, product.currency)] if product.price is not None else ["price not known"]
    parts += [stock_told(product.in_stock, product.stock)]
    parts += [f"{name}: {value}" for name, value in product.attributes.items()]
    parts += [product.url] if product.url else []
    parts += [product.description[:DESCRIPTION]] if product.description else []
    return _cut(" | ".join(" ".join(part.split()) for part in parts), ROW)


def _cut(text: str, most: int) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= most else data[:most].decode(errors="ignore") + "…"
