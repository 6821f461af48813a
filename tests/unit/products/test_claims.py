"""What an answer claims of products, beside the rows that it was given from."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deployments.providers.scripted_products import answer
from domain.claims import CORRECTION, MOST_CHARACTERS, check, named
from domain.product_facts import no_facts, row_of
from domain.products import Product
from tests.unit.products.shop import SHOP, product


def kinds(text, question=""):
    return [(one.kind, one.said) for one in check(text, SHOP, question).wrong]


@pytest.mark.parametrize(
    "text",
    [
        "The Nordic T-shirt in red, size M, costs $24.90 and is in stock.",
        "The Nordic T-shirt comes in red and grey, from 24.90 USD to 26.90 USD.",
        "The Aurora desk lamp is $89. It is in stock (5 left).",
        "1. **Aurora desk lamp** – $89.00\n2. **Borea floor lamp** – $149.00",
        "- Aurora desk lamp\n  - Price: 89 USD\n  - Stock: 5",
        "The Aurora desk lamp costs 89 USD and the Borea floor lamp costs 149 USD.",
        "The grey Nordic T-shirt is sold out, but the red one in M is in stock.",
        "Two Aurora desk lamps come to 178 USD: 2 of them.",
        "The Aurora desk lamp saves you $60 beside the Borea floor lamp.",
        "Aurora desk lamp: about 90 dollars.",
        "Shipping costs 5 USD. Is the lamp available in black?",
        "If it is sold out, let me know.",
        "Thank you for your message!",
        "",
    ],
)
def test_what_rows_support_is_right(text):
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The Aurora desk lamp costs $79.", [("price", "$79")]),
        ("The Aurora desk lamp costs 149 USD.", [("price", "149 USD")]),
        (
            "The Aurora desk lamp costs 149 USD and the Borea floor lamp costs 89 USD.",
            [("price", "149 USD"), ("price", "89 USD")],
        ),
        ("The red Nordic T-shirt in size L costs 24.90 USD.", [("price", "24.90 USD")]),
        ("The Aurora desk lamp is nice. It costs 99 euros.", [("price", "99 euros")]),
        ("The Aurora desk lamp costs 89 EUR.", [("price", "89 EUR")]),
        ("The grey Nordic T-shirt is in stock.", [("stock", "in stock")]),
        ("The Aurora desk lamp is sold out.", [("stock", "sold out")]),
        ("Only 2 left of the Aurora desk lamp!", [("stock", "Only 2 left")]),
        ("- **Zephyr ceiling fan** – $59.50", [("name", "Zephyr ceiling fan")]),
        ("Everything here costs 12.34 USD.", [("price", "12.34 USD")]),
    ],
)
def test_what_no_row_supports_is_found(text, wrong):
    assert kinds(text) == wrong


def test_amounts_that_the_user_named_are_no_claims():
    assert kinds("You asked for lamps at 50 USD: the Aurora desk lamp is 89 USD.", "lamps at 50 USD?") == []


def test_a_correction_says_what_the_rows_say_and_has_nothing_wrong_in_it():
    text = "The Aurora desk lamp costs $79 and is sold out."
    found = check(text, SHOP)
    assert found.correction.startswith(CORRECTION)
    assert "Aurora desk lamp (red, black, yes) costs 89.00 USD, not 79.00 USD." in found.correction
    assert "is in stock (5 left)." in found.correction
    assert check(text + found.correction, SHOP).wrong == found.wrong


def test_products_are_named_in_the_order_of_the_text_and_of_variants_the_one_that_is_meant():
    text = "Take the Borea floor lamp, or the Nordic T-shirt in red, size L. The Aurora desk lamp too."
    assert [one.id for one in named(text, SHOP)] == ["lamp-2", "tee-red-l", "lamp-1"]
    assert [one.id for one in named("See https://shop.example/disk-2 for it", SHOP)] == ["disk-2"]
    assert [one.id for one in named("The number is tee-grey-m.", SHOP)] == ["tee-grey-m"]
    assert named("We have lamps of all kinds.", SHOP) == ()


NAMES = st.lists(
    st.sampled_from(["Aurora", "Borea", "Canto", "Delta", "Fjord", "Garnet", "lamp", "chair", "table", "rug"]),
    min_size=1,
    max_size=4,
)
PRICES = st.decimals(min_value=Decimal("0.50"), max_value=9999, places=2)
PRODUCTS = st.lists(
    st.builds(
        lambda words, price, stock, colour: (" ".join(words), price, stock, colour),
        NAMES,
        PRICES,
        st.integers(0, 30),
        st.sampled_from(["red", "blue", "green", "oak"]),
    ),
    min_size=1,
    max_size=6,
)


def shop_of(drawn) -> list[Product]:
    return [
        product(f"id-{n}", title, str(price), stock=stock, colour=colour)
        for n, (title, price, stock, colour) in enumerate(drawn)
    ]


@given(PRODUCTS, st.sampled_from(["list", "have", "stock", "price", "cheapest", "dearest", "count"]))
def test_an_answer_made_of_rows_has_nothing_wrong_in_it(drawn, kind):
    products = shop_of(drawn)
    facts = no_facts(kind, "things")
    facts["rows"], facts["total"], facts["stocked"] = [row_of(one) for one in products], len(products), None
    prices = [one.price for one in products]
    facts["lowest"], facts["highest"] = min(prices), max(prices)
    assert check(answer(facts), products).wrong == ()


@given(PRODUCTS, PRICES)
def test_a_price_that_no_row_has_is_found_and_the_correction_names_the_right_one(drawn, price):
    products = shop_of(drawn[:1])
    assume(products[0].price != price)
    found = check(f"The {products[0].title} costs {price} USD.", products)
    assert [one.kind for one in found.wrong] == ["price"]
    assert f"{products[0].price:.2f} USD" in found.correction


@given(st.text(max_size=400), st.text(max_size=60))
def test_any_text_can_be_checked_and_the_same_is_found_each_time(text, question):
    assert check(text, SHOP, question) == check(text, SHOP, question)


def test_what_is_behind_the_first_characters_is_not_looked_at():
    text = "x " * (MOST_CHARACTERS // 2) + "The Aurora desk lamp costs $1."
    assert check(text, SHOP).wrong == ()
