"""What the built-in model says of products: sentences made of the catalogue's rows, and of nothing else."""

from collections.abc import Sequence
from decimal import Decimal

from domain.product_facts import UNSEEN, ProductFacts, ProductRow, stock_told
from domain.product_prices import told

MOST_TOLD = 5  # products in one answer
_SHOWN_FIRST = ("size", "color", "colour")


def answer(facts: ProductFacts) -> str:
    """The answer to a product question; the same to the same facts."""
    if facts["unseen"]:
        return f"{UNSEEN} Please ask again in a moment."
    rows = facts["rows"]
    if not rows:
        return _nothing(facts)
    if facts["nearest"]:
        return _nearest(facts)
    if facts["kind"] == "compare" and len(facts["sides"]) == 2:
        return _compared(rows[0], rows[1])
    if facts["kind"] == "values" and facts["attribute"]:
        return _values(facts, facts["attribute"])
    if facts["kind"] == "count":
        return _counted(facts)
    if facts["kind"] in ("cheapest", "dearest"):
        return _extreme(facts)
    if facts["kind"] == "stock":
        return _stocked(facts)
    if facts["kind"] == "price":
        return _priced(facts)
    return _listed(facts)


def line(row: ProductRow) -> str:
    """A product on one line: title, values, price, stock, address."""
    attributes = sorted(row["attributes"].items(), key=lambda one: one[0] not in _SHOWN_FIRST)
    values = f" ({', '.join(f'{name}: {value}' for name, value in attributes)})" if attributes else ""
    address = f" {row['url']}" if row["url"] else ""
    return f"{row['title']}{values}: {price(row)}, {stock_told(row['in_stock'], row['stock'])}{address}"


def price(row: ProductRow) -> str:
    return "price not known" if row["price"] is None else told(row["price"], row["currency"])


def _lines(rows: Sequence[ProductRow]) -> str:
    return "\n".join(f"{place}. {line(row)}" for place, row in enumerate(rows[:MOST_TOLD], 1))


def _more(facts: ProductFacts) -> str:
    hidden = (facts["total"] or len(facts["rows"])) - MOST_TOLD
    if hidden <= 0:
        return ""
    are = "is 1" if hidden == 1 else f"are {hidden}"
    return f"\nThere {are} more; tell me what matters to you, and I can narrow the choice down."


def _nothing(facts: ProductFacts) -> str:
    said = f"I find nothing in the catalogue for: {facts['wish']}." if facts["wish"] else "The catalogue is empty."
    if facts["categories"]:
        return f"{said} There is: {', '.join(facts['categories'])}."
    return f"{said} Other words or fewer conditions may help."


def _nearest(facts: ProductFacts) -> str:
    lacking = f" (not found: {', '.join(facts['lacking'])})" if facts["lacking"] else ""
    none = "No, there is none that fits" if facts["kind"] in ("have", "stock", "count") else "I find none that fits"
    return f"{none}: {facts['wish']}{lacking}. The nearest I have:\n{_lines(facts['rows'])}"


def _listed(facts: ProductFacts) -> str:
    rows = facts["rows"]
    if not facts["wish"] and facts["categories"]:
        kinds = ", ".join(facts["categories"])
        return f"The shop has {facts['total'] or len(rows)} products: {kinds}. For example:\n{_lines(rows[:3])}"
    if facts["kind"] == "have":
        if all(row["in_stock"] is False for row in rows):
            return f"Yes, but out of stock at the moment:\n{_lines(rows)}{_more(facts)}"
        return f"Yes:\n{_lines(rows)}{_more(facts)}"
    head = "This fits" if len(rows) == 1 else "These fit"
    return f"{head}:\n{_lines(rows)}{_more(facts)}"


def _stocked(facts: ProductFacts) -> str:
    rows = facts["rows"]
    there = [row for row in rows if row["in_stock"]]
    if len(rows) == 1:
        word = "Yes" if there else "No" if rows[0]["in_stock"] is False else "I do not know"
        return f"{word}: {line(rows[0])}"
    if not there:
        return f"No, all {len(rows)} of them are out of stock:\n{_lines(rows)}"
    return f"Yes, {len(there)} of {facts['total'] or len(rows)}:\n{_lines(there)}"


def _priced(facts: ProductFacts) -> str:
    rows, low, high = facts["rows"], facts["lowest"], facts["highest"]
    if len(rows) == 1:
        return line(rows[0])
    if low is None or high is None or low == high:
        return f"{_lines(rows)}{_more(facts)}"
    currency = rows[0]["currency"]
    return f"From {told(low, currency)} to {told(high, currency)}, as the variant may be:\n{_lines(rows)}{_more(facts)}"


def _extreme(facts: ProductFacts) -> str:
    word = "cheapest" if facts["kind"] == "cheapest" else "most expensive"
    rows = facts["rows"]
    text = f"The {word} is: {line(rows[0])}"
    there = next((row for row in rows if row["in_stock"]), None)
    if rows[0]["in_stock"] is False and there is not None:
        text += f"\nThe {word} that is in stock: {line(there)}"
    return text


def _counted(facts: ProductFacts) -> str:
    if facts["total"] is None:
        return f"There are many kinds of: {facts['wish']}. For example:\n{_lines(facts['rows'][:3])}"
    total, stocked = facts["total"], facts["stocked"]
    there = "" if stocked is None else f", {stocked} of them in stock"
    kinds = "kind" if total == 1 else "kinds"
    return f"There are {total} {kinds} of: {facts['wish']}{there}. For example:\n{_lines(facts['rows'][:3])}"


def _values(facts: ProductFacts, attribute: str) -> str:
    if not facts["values"]:
        return f"The catalogue does not say the {attribute} of: {facts['wish']}.\n{_lines(facts['rows'][:3])}"
    values = [f"{one} (out of stock)" if one in facts["gone"] else one for one in facts["values"]]
    return f"{facts['rows'][0]['title']}, {attribute}: {', '.join(values)}."


def _compared(one: ProductRow, other: ProductRow) -> str:
    text = f"1. {line(one)}\n2. {line(other)}"
    if one["price"] is None or other["price"] is None or one["currency"] != other["currency"]:
        return text
    if one["price"] == other["price"]:
        return f"{text}\nBoth cost the same."
    cheaper = "first" if one["price"] < other["price"] else "second"
    difference: Decimal = abs(one["price"] - other["price"])
    return f"{text}\nThe {cheaper} is cheaper; the difference is {told(difference, one['currency'])}."
