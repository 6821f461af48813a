"""Which searches a message takes, and what the built-in model makes of what they find."""

import pickle
import pickletools

import pytest

from deployments.providers.scripted import reply
from deployments.providers.scripted_products import answer
from domain.context.fence import NOTE
from domain.generation import GenerationRequest
from domain.product_facts import UNSEEN, material_of, no_facts
from domain.product_reading import read
from domain.product_search import ProductSearch
from domain.products import ProductQuery
from tests.doubles.catalogue import MemoryCatalogue
from tests.unit.products.shop import LEXICON, SHOP


@pytest.fixture
async def catalogue():
    made = MemoryCatalogue()
    await made.put("t", SHOP)
    return made


async def asked(catalogue, *texts):
    said, last, seen = [], "", None
    for text in texts:
        seen = await ProductSearch(catalogue, "t", None, last).seen(read(text, LEXICON, said), LEXICON)
        said.append(text)
        last = answer(seen.facts)
    return last, seen


@pytest.mark.parametrize(
    ("texts", "facts"),
    [
        (
            ["Do you have a red T-shirt in M?"],
            ["Yes", "24.90 USD", "in stock (5 left)", "https://shop.example/tee-red-m"],
        ),
        (["Do you have a grey T-shirt?"], ["out of stock", "24.90 USD"]),
        (["Do you have a white T-shirt?"], ["No", "not found: white", "Nordic T-shirt"]),
        (["How much is a red T-shirt?"], ["From 24.90 USD to 26.90 USD"]),
        (["Is the Aurora desk lamp in stock?"], ["Yes", "Aurora desk lamp"]),
        (["How many kinds of lamps are there?"], ["There are 2 kinds", "2 of them in stock"]),
        (["What is your cheapest disk?"], ["59.50 USD"]),
        (["the most expensive disk"], ["99.50 USD", "that is in stock", "59.50 USD"]),
        (["Which sizes does the T-shirt come in?"], ["size: L, M."]),
        (["Compare the Aurora lamp and the Borea lamp"], ["The first is cheaper; the difference is 60.00 USD"]),
        (["lamps with a red base"], ["Borea floor lamp"]),
        (["Do you sell unicorns?"], ["nothing"]),
        (["What do you sell?"], ["7 products", "Lamps", "Storage"]),
        (["Is tee-red-9999 in stock?"], ["nothing"]),
        (["Do you have red T-shirts?", "the second one"], ["24.90 USD"]),
        (["Do you have red T-shirts?", "anything cheaper than that?"], ["T-shirt"]),
        (["How much is the red T-shirt in L?", "do you have it in grey?"], ["No"]),
        (["lamps", "anything cheaper?"], ["none that fits"]),
    ],
)
async def test_answers(catalogue, texts, facts):
    said, _ = await asked(catalogue, *texts)
    assert [fact for fact in facts if fact not in said] == [], said


async def test_one_search_is_enough_where_something_fits(catalogue):
    _, seen = await asked(catalogue, "Do you have a red T-shirt in M?")
    assert seen.searches == 1 and [one.id for one in seen.products] == ["tee-red-m"]


async def test_words_go_to_the_catalogue_as_they_were_said(catalogue):
    await asked(catalogue, "Show me Aurora things")
    [(name, query)] = [call for call in catalogue.calls if call[0] == "search"][:1]
    assert isinstance(query, ProductQuery) and query.text == "Aurora" and name == "search"


async def test_a_prompt_is_told_a_product_a_line(catalogue):
    _, seen = await asked(catalogue, "Do you have red T-shirts?")
    first, second = material_of(seen.facts, seen.products).texts
    assert first.startswith(
        "2 products of the catalogue fit: Clothing > T-shirts, red. Of these:\nNordic T-shirt [tee-red-"
    )
    assert " | 26.90 USD | in stock (5 left) | colour: red | size: L | https://" in first + second


def test_a_prompt_is_told_that_nothing_can_be_seen_or_fits():
    assert material_of(no_facts(unseen=True), ()).texts == (UNSEEN,)
    assert "No product" in material_of(no_facts(wish="a moose"), ()).texts[0]
    assert UNSEEN in answer(no_facts(unseen=True))


def test_the_built_in_model_answers_from_the_catalogue_before_its_templates():
    said = reply(
        [{"role": "user", "content": f"{NOTE}lamps?"}], "product_search", "Is this about A or B?", "Two lamps."
    )
    assert said.endswith("\n\nTwo lamps.") and "configured" in said


async def test_what_crosses_processes_needs_no_class_that_an_older_version_has_not(catalogue):
    _, seen = await asked(catalogue, "Do you have red T-shirts?")
    request = GenerationRequest("t", "turn", 1, "scripted", [], products=seen.facts)
    data = pickle.dumps(request)
    named = [str(argument) for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)]
    modules = {one for one in named if one.startswith(("domain", "deployments", "pydantic"))}
    assert modules == {"domain.carried", "domain.generation"}
    assert pickle.loads(data) == request  # noqa: S301 - its own
