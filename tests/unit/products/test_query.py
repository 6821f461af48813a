"""What a message asks of the products."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.product_cues import follows, plainly
from domain.product_prices import amounts, bounds, told
from domain.product_reading import read
from domain.product_words import forms, near
from tests.unit.products.shop import LEXICON, SHOP


def wishes(reading):
    return {wish.said: dict(wish.values) for wish in reading.wishes}


@pytest.mark.parametrize(
    ("text", "least", "most", "currency"),
    [
        ("under 50 dollars", None, "49.99", "USD"),
        ("between 20 and 40 €", "20", "40", "EUR"),
        ("20-40 euros", "20", "40", "EUR"),
        ("at least $5", "5", None, "USD"),
        ("up to 1,299.50 USD", None, "1299.50", "USD"),
        ("not over 1.299,50 €", None, "1299.50", "EUR"),
        ("for more than 100", "100.01", None, None),
        ("around 100 dollars", "85.00", "115.00", "USD"),
        ("my budget is £30", None, "30", "GBP"),
        ("for 30 bucks or less", None, "30", "USD"),
        ("a tent for 2 people", None, None, None),
        ("from 9 to 5", None, None, None),
        ("under 15 inch", None, None, None),
        ("size 42", None, None, None),
    ],
)
def test_bounds_of_a_price(text, least, most, currency):
    found = bounds(f"A lamp {text}, please")
    assert (found.least, found.most) == (least and Decimal(least), most and Decimal(most))
    assert found.currency == currency


@given(st.decimals(min_value=0, max_value=10**6, places=2))
def test_an_amount_as_it_is_told_is_read_again(amount):
    [found] = amounts(f"It costs {told(amount, 'USD')}.")
    assert (found.amount, found.currency) == (amount, "USD")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Do you have a red T-shirt?", "have"),
        ("Is the Aurora desk lamp in stock?", "stock"),
        ("How much is the Aurora desk lamp?", "price"),
        ("What does a desk lamp cost?", "price"),
        ("How many kinds of lamps do you have?", "count"),
        ("the cheapest lamp", "cheapest"),
        ("What is the most expensive lamp?", "dearest"),
        ("Compare the Aurora and the Borea lamp", "compare"),
        ("What colours does the T-shirt come in?", "values"),
        ("Tell me about the Aurora lamp", "details"),
        ("Show me lamps", "list"),
    ],
)
def test_the_kind_of_a_question(text, kind):
    assert read(text, LEXICON).kind == kind


def test_values_of_the_catalogue_are_found_in_any_number_spelling_and_case():
    reading = read("GRAY t shirts in size medium", LEXICON)
    assert reading.category == "Clothing > T-shirts"
    assert wishes(reading) == {"GRAY": {"colour": ("grey",)}, "medium": {"size": ("M",)}}
    assert read("a Nordik tshirt", LEXICON).words == ("nordik",)
    assert wishes(read("disks of 256 GB", LEXICON)) == {"256 GB": {"capacity": ("256GB SSD",)}}


def test_a_word_of_several_attributes_is_a_wish_of_either_until_one_is_named():
    assert wishes(read("red lamps", LEXICON))["red"].keys() == {"colour", "shade colour", "base colour"}
    assert wishes(read("lamps with a red base", LEXICON)) == {"red": {"base colour": ("red",)}}


def test_a_number_or_a_letter_needs_its_attribute_beside_it():
    assert wishes(read("I have 2 lamps and one l", LEXICON)) == {}
    assert wishes(read("the shirt in L", LEXICON)) == {"L": {"size": ("L",)}}


def test_what_is_or_is_not():
    assert wishes(read("a dimmable lamp", LEXICON)) == {"dimmable": {"dimmable": ("yes",)}}
    assert wishes(read("a lamp that is not dimmable", LEXICON)) == {"not dimmable": {"dimmable": ("no",)}}
    [wish] = read("T-shirts, but not red", LEXICON).wishes
    assert wish.negated and wish.values["colour"] == ("red",)


def test_several_values_are_one_wish():
    [wish] = read("a red or grey T-shirt with colour", LEXICON).wishes
    assert wish.values["colour"] == ("red", "grey")


def test_order_numbers_and_ids_are_left_alone():
    reading = read("Where is order #12345? And is tee-red-1234 or 9612497925 in stock?", LEXICON)
    assert reading.ids == ("tee-red-1234", "9612497925") and not reading.bounds
    assert "12345" not in reading.words


def test_stock_is_a_filter_where_it_is_not_the_question():
    assert read("lamps that are in stock", LEXICON).in_stock is True
    assert read("the cheapest lamp available", LEXICON).in_stock is True
    assert read("Is the Aurora lamp in stock?", LEXICON).in_stock is None


@pytest.mark.parametrize(
    ("earlier", "text", "expected"),
    [
        (["Do you have a red T-shirt?"], "and in grey?", {"grey"}),
        (["Do you have a red T-shirt?"], "what about size L?", {"red", "L"}),
        (["Do you have a red T-shirt?", "and in grey?"], "in M please", {"grey", "M"}),
        (["Do you have a red T-shirt?", "Thanks!"], "any in grey?", {"grey"}),
        (["Do you have a red T-shirt?"], "which colours are there?", set()),
    ],
)
def test_a_follow_up_keeps_what_it_does_not_change(earlier, text, expected):
    reading = read(text, LEXICON, earlier)
    assert reading.category == "Clothing > T-shirts" and set(wishes(reading)) == expected


def test_a_follow_up_may_speak_of_what_was_shown():
    earlier = ["Do you have T-shirts?"]
    assert [
        read(text, LEXICON, earlier).refers for text in ("the second one", "the last", "option 3", "how much is it?")
    ] == [
        1,
        -1,
        2,
        0,
    ]
    assert read("anything cheaper?", LEXICON, earlier).cheaper


def test_a_question_of_its_own_forgets_what_was_said():
    reading = read("Do you have dimmable lamps?", LEXICON, ["Do you have a red T-shirt under $50?"])
    assert reading.category == "Lamps" and set(wishes(reading)) == {"dimmable"} and not reading.bounds


def test_both_sides_of_a_comparison():
    reading = read("Which is cheaper, the red T-shirt or the grey one?", LEXICON)
    assert [(side.category, set(wishes(side))) for side in reading.sides] == [
        ("Clothing > T-shirts", {"red"}),
        ("Clothing > T-shirts", {"grey"}),
    ]


@pytest.mark.parametrize(
    "text", ["Do you have lamps?", "What does it cost?", "something for $20", "show me shoes in size 9"]
)
def test_a_text_that_asks_for_products(text):
    assert plainly(text)


@pytest.mark.parametrize(
    "text",
    ["hello", "Where is my order?", "I want a refund, how much is it?", "track my parcel", "I forgot my password"],
)
def test_a_text_that_does_not(text):
    assert not plainly(text) and not follows(text)


@given(st.text(max_size=300), st.lists(st.text(max_size=60), max_size=4))
def test_any_text_can_be_read(text, earlier):
    reading = read(text, LEXICON, earlier)
    assert len(reading.words) == len(reading.said)
    for one in SHOP:
        assert reading.fits(one) in (True, False)


@given(st.text(alphabet="abcdefgh", min_size=5, max_size=9), st.integers(0, 8), st.sampled_from("xyz"))
def test_a_word_with_one_letter_wrong_is_near_and_with_another_beginning_it_is_not(word, place, letter):
    place = 1 + place % (len(word) - 1)
    assert near(word, word[:place] + letter + word[place + 1 :]) and near(word, word[:place] + letter + word[place:])
    assert not near(word, letter + word[1:])


def test_forms_are_the_same_for_singular_plural_and_spelling():
    assert forms("T-shirts") == forms("t shirt") == forms("tshirt")
    for one, other in (("colours", "color"), ("batteries", "battery"), ("sizes", "size"), ("mice", "mouse")):
        assert forms(one) == forms(other)


LONG = """
from domain.claims import named
from domain.product_reading import read
from tests.unit.products.shop import LEXICON, SHOP
for blanks in (" ", "\\n", " \\n"):
    run = blanks * (1990 // len(blanks))
    assert read("order" + run + "x", LEXICON).kind == "list"
    assert read("and compare a" + run + "b", LEXICON, [f"show me an order{run}x"] * 8).kind == "compare"
    named(f"The first{run * 8}| second" * 2, SHOP)
"""


def test_runs_of_blanks_do_not_keep_the_reader_busy():
    """A process of its own, which can be stopped: a pattern that is at work cannot be."""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", LONG], cwd=root, timeout=60, check=True)
