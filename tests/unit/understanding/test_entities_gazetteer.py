"""Lists of names: exact and misspelt, in any script, and large ones."""

import random
import tracemalloc

import pytest

from deployments.entities.extractor import Extractor
from deployments.entities.gazetteer import Gazetteer
from deployments.entities.spelling import NearWords
from domain.slots import SlotDefinition, SlotValue
from tests.unit.understanding.test_entities import extractor, found, listed, slot


def values(text: str, *names: str, fuzzy: bool = True) -> list[tuple[str, object]]:
    return [(entity.text, entity.value) for entity in extractor(listed("s", *names, fuzzy=fuzzy)).extract(text)]


@pytest.mark.parametrize(
    ("text", "name", "piece"),
    [
        ("to NEW   york!", "New York", "NEW   york"),
        ("in Seattle's centre", "Seattle", "Seattle"),
        ("levis please", "Levi's", "levis"),
        ("Levi’s please", "Levi's", "Levi’s"),
        ("an iphone15, yes", "iPhone 15", "iphone15"),
        ("my head phones", "Headphones", "head phones"),
        ("NORTHFACE bag", "North Face", "NORTHFACE"),
        ("from Mr. Smith", "Mr Smith", "Mr. Smith"),
        ("à Zurich", "Zürich", "Zurich"),
        ("a Zu\u0308rich b", "Zürich", "Zu\u0308rich"),
        ("a Zü\u200brich b", "Zürich", "Zü\u200brich"),
        ("明日東京へ", "東京", "東京"),
        ("ไปกรุงเทพ", "กรุงเทพ", "กรุงเทพ"),
        ("in C++ now", "C++", "C++"),
        ("😀😀 Paris😀", "Paris", "Paris"),
        ("STRASSE", "straße", "STRASSE"),
    ],
)
def test_a_name_is_found_however_it_is_written(text: str, name: str, piece: str) -> None:
    assert values(text, name, fuzzy=False) == [(piece, name)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("golden", "gold"),
        ("pregold", "gold"),
        ("gold_plated", "gold"),
        ("in C now", "C++"),
        ("it is blue. Shirts too", "Blue Shirts"),
        ("blue, shirt", "Blue Shirt"),
        ("new or york", "New York"),
    ],
)
def test_a_part_of_a_word_or_of_a_name_is_not_found(text: str, name: str) -> None:
    assert values(text, name, fuzzy=False) == []


@pytest.mark.parametrize("said", ["philadelfia", "phildelphia", "Philadelphai", "pphiladelphia", "filadelphia"])
def test_a_long_name_may_have_two_mistakes(said: str) -> None:
    assert values(f"to {said} please", "Philadelphia") == [(said, "Philadelphia")]


@pytest.mark.parametrize("said", ["dublni", "dubln", "dubblin", "dublim"])
def test_a_middling_name_may_have_one_mistake(said: str) -> None:
    assert values(f"to {said} please", "Dublin") == [(said, "Dublin")]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("dbln", "Dublin"),
        ("prp", "Pro"),
        ("hold", "Gold"),
        ("12346", "12345"),
        ("a55", "A54"),
        ("bold", "Gold"),
        ("philadephai city", "Delphia"),
    ],
)
def test_too_many_mistakes_short_names_digits_and_other_words_do_not_count(said: str, name: str) -> None:
    assert values(said, name) == []


@pytest.mark.parametrize(("said", "name"), [("cameras", "Camera"), ("boot", "Boots"), ("dark oranges", "Dark Orange")])
def test_a_name_may_be_in_the_other_number(said: str, name: str) -> None:
    assert values(f"my {said}, please", name) == [(said, name)]
    assert values(f"my {said}, please", name, fuzzy=False) == []


@pytest.mark.parametrize(
    ("said", "name"),
    [("certain", "Curtain"), ("speaker", "Sneakers"), ("soda", "Sofa"), ("fellow", "Yellow"), ("isn't able", "Table")],
)
def test_english_words_are_never_misspelt_names(said: str, name: str) -> None:
    assert values(f"it is {said}, you know", name) == []


def test_ordinary_words_of_the_tenant_are_never_misspelt_names() -> None:
    plan = listed("plan", "Silver", fuzzy=True)
    assert found(extractor(plan).extract("a silvar of cake"))
    assert not extractor(plan, ordinary={"silvar"}).extract("a silvar of cake")


def test_synonyms_mean_their_value_and_the_first_of_two_has_a_name() -> None:
    value = [{"value": "United States", "synonyms": ["USA", "the States"]}, {"value": "Other", "synonyms": ["usa"]}]
    countries = extractor(slot("country", "list", values=value))
    assert found(countries.extract("USA or the states")) == [
        ("country", "USA", "United States"),
        ("country", "the states", "United States"),
    ]


@pytest.mark.parametrize("name", ["", "!!!", "\u200b", "a " * 25])
def test_a_name_that_cannot_be_found_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name has a letter or digit, and at most 24 words"):
        Gazetteer([SlotValue.model_construct(value=name, synonyms=[], needs_cue=False)])


def test_near_words_are_those_within_the_distance() -> None:
    chance = random.Random(1)
    known = sorted({"".join(chance.choices("abcde", k=chance.randrange(4, 11))) for _ in range(600)})
    index = NearWords(known)
    for word in known[::5]:
        place = chance.randrange(2, len(word))
        mistake = word[:place] + word[place + 1 :]
        assert known.index(word) in [near for near, _ in index.near(mistake)] or len(mistake) < 4
        assert index.near(word)[0] == (known.index(word), 0)


def test_fifty_thousand_names_are_found_in_bounded_memory() -> None:
    chance = random.Random(2)
    letters = "abcdefghijklmnoprstuvz"
    brands = ["".join(chance.choices(letters, k=7)) for _ in range(2000)]
    names = [f"{chance.choice(brands)} {''.join(chance.choices(letters, k=8))} lamp" for _ in range(50_000)]
    products = [SlotValue(value=name) for name in names]
    tracemalloc.start()
    shared = Gazetteer(products)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 150 * 2**20
    assert peak < 300 * 2**20
    lamps = Extractor([SlotDefinition(name="product", kind="list", gazetteer="lamps")], {"lamps": shared})
    for name in chance.sample(names, 200):
        brand, model, _ = name.split()
        wrong = f"{brand} {model[:3]}{model[4:]} lamp"
        assert found(lamps.extract(f"is the {name.upper()} there?")) == [("product", name.upper(), name)]
        assert [entity.value for entity in lamps.extract(f"is the {wrong} there?")] == [name]
