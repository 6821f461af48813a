"""Extraction as a whole: offsets, overlaps, cues, parameters, and definitions that are refused."""

import pickle
from collections.abc import Sequence
from datetime import date
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.entities.extractor import MOST_ENTITIES, Extractor, parameters
from deployments.entities.gazetteer import Gazetteer
from domain.errors import InvalidSlot
from domain.slots import Kind, SlotDefinition, SlotValue
from domain.understanding import Entity

TODAY = date(2026, 3, 5)  # a Thursday
BUILT_IN = [kind for kind in get_args(Kind) if kind not in ("pattern", "list")]


def slot(name: str, kind: str, **more: Any) -> SlotDefinition:
    return SlotDefinition.model_validate({"name": name, "kind": kind} | more)


def extractor(*slots: SlotDefinition, **more: Any) -> Extractor:
    return Extractor(slots, today=lambda: TODAY, **more)


def listed(name: str, *values: str, **more: Any) -> SlotDefinition:
    return slot(name, "list", values=[{"value": value} for value in values], **more)


EVERYTHING = extractor(
    *(slot(kind, kind, fuzzy=kind == "colour") for kind in BUILT_IN),
    listed("city", "New York", "Zürich", "東京", "Paris", "São Paulo", fuzzy=True, cues=["to"]),
    slot("code", "pattern", pattern=r"[A-Z]{2}-\d+"),
)


def found(entities: Sequence[Entity]) -> list[tuple[str, str, Any]]:
    return [(entity.slot, entity.text, entity.value) for entity in entities]


PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "next Friday",
            "the 8th",
            "5pm",
            "$19.99",
            "20 %",
            "two",
            "3x",
            "a@b.example",
            "+44 20 7946 0958",
            "https://x.example/a?b",
            "order A-1234",
            "dark bluue",
            "size M",
            "Zurich",
            "Zürich",
            "東京",
            "new  york",
            "AB-12",
            "\u200b",
            "́",
            "👩\u200d👩\u200d👧",
            "�",
            "İ",
            "ß",
            "ﬁ",
            "½",
            "\x00",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@example(["Zu\u0308rich", "😀", "5pm"])
@example(["İstanbul", "ﬁve", "½"])
@given(st.lists(PIECES, max_size=12))
def test_entities_are_where_they_say_in_order_and_apart(pieces: list[str]) -> None:
    text = " ".join(pieces)
    end = 0
    for entity in EVERYTHING.extract(text):
        assert end <= entity.start < entity.end <= len(text)
        assert text[entity.start : entity.end] == entity.text
        end = entity.end


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="😀é\u0301\u200b東ab ", max_size=20))
def test_what_stands_before_moves_the_offsets_and_nothing_else(before: str) -> None:
    entities = EVERYTHING.extract(f"{before}. fly to Zürich tomorrow")
    assert found(entities)[-2:] == [("city", "Zürich", "Zürich"), ("date", "tomorrow", "2026-03-06")]


def test_the_longer_one_of_two_stays() -> None:
    cities = extractor(listed("city", "York", "New York"), listed("state", "New"))
    assert found(cities.extract("to New York")) == [("city", "New York", "New York")]


def test_an_exact_name_outweighs_a_misspelt_one_of_its_length() -> None:
    both = extractor(listed("wood", "Walnat", fuzzy=True), listed("nut", "Walnut", fuzzy=True))
    assert found(both.extract("walnut")) == [("nut", "walnut", "Walnut")]


def test_the_slot_defined_first_has_what_two_find_alike() -> None:
    one, two = slot("one", "number"), slot("two", "number")
    assert found(extractor(one, two).extract("7")) == [("one", "7", 7)]
    assert found(extractor(two, one).extract("7")) == [("two", "7", 7)]


def test_cues_decide_between_slots_of_the_same_names() -> None:
    cities = ("Boston", "Seattle")
    trip = extractor(listed("origin", *cities, cues=["from"]), listed("destination", *cities, cues=["to"]))
    wanted = {"origin": "Boston", "destination": "Seattle"}
    for text in ("from Boston to Seattle", "to Seattle from Boston", "a train to seattle, and it leaves from boston"):
        assert parameters(trip.extract(text), trip.slots) == wanted


def test_a_value_that_needs_a_cue_counts_only_beside_one() -> None:
    plan = slot("plan", "list", values=[{"value": "free", "needs_cue": True}, {"value": "Gold"}], cues=["account"])
    assert found(extractor(plan).extract("open a free account")) == [("plan", "free", "free")]
    assert found(extractor(plan).extract("open a free acount")) == [("plan", "free", "free")]
    assert found(extractor(plan).extract("is there a free number? gold")) == [("plan", "gold", "Gold")]


def test_a_slot_that_needs_a_cue_counts_only_beside_one() -> None:
    only = extractor(slot("guests", "number", cues=["guests", "people"], needs_cue=True))
    assert found(only.extract("a table for 4 people")) == [("guests", "4", 4)]
    assert only.extract("it costs 4") == []


def test_a_pattern_gives_its_first_group_and_no_part_of_a_word() -> None:
    code = extractor(slot("code", "pattern", pattern=r"code\s+([A-Z]{2}\d{3})"))
    assert found(code.extract("my code ab123, thanks")) == [("code", "ab123", "ab123")]
    assert code.extract("my code ab1234") == []


def test_a_long_number_may_lack_the_space_before_it() -> None:
    order = extractor(slot("order", "pattern", pattern=r"\d{8,15}"))
    assert found(order.extract("cancel order732201349959 now")) == [("order", "732201349959", "732201349959")]


def test_parameters_are_values_and_lists_of_several() -> None:
    slots = [slot("count", "number"), slot("colour", "colour"), slot("when", "date")]
    entities = extractor(*slots).extract("3 shirts, red and blue, and red again, by tomorrow")
    assert parameters(entities, slots) == {"count": 3, "colour": ["red", "blue"], "when": "2026-03-06"}
    assert parameters(entities, slots[:1]) == {"count": 3}
    assert parameters([], slots) == {}


def test_shared_lists_are_found_by_name() -> None:
    shared = {"products": Gazetteer([SlotValue(value="Air Max 90", synonyms=["airmax"])])}
    products = extractor(slot("product", "list", gazetteer="products"), gazetteers=shared)
    assert found(products.extract("two airmax please")) == [("product", "airmax", "Air Max 90")]


def test_no_more_than_a_bounded_number_is_answered() -> None:
    assert len(extractor(slot("n", "number")).extract("1 " * 2000)) == MOST_ENTITIES


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([slot("code", "pattern", pattern="(unclosed")], "slot code: pattern: missing \\)"),
        ([slot("code", "pattern", pattern=r"(?=a)a")], "slot code: pattern: invalid perl operator"),
        ([slot("code", "pattern", pattern=r"(a)\1")], "slot code: pattern: invalid escape sequence"),
        ([slot("code", "pattern", pattern="a*")], "slot code: pattern: it matches the empty text"),
        ([slot("code", "pattern", pattern=r"(?:\pL{1,50}){1,20}")], "slot code: pattern: .*too large"),
        ([slot("code", "pattern", pattern=r"(?:abcdefgh){260}")], "slot code: pattern: too large .* at most 2000"),
        ([slot("a", "number"), slot("a", "date")], "slot a: defined twice"),
        ([slot("a", "list", gazetteer="x")], "slot a: no gazetteer 'x'; there are: none"),
        ([listed("a", "😀")], "slot a: '😀': a name has a letter or digit"),
        ([slot(f"s{place}", "number") for place in range(201)], "slot s200: at most 200 slots"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_by_name(slots: list[SlotDefinition], message: str) -> None:
    with pytest.raises(InvalidSlot, match=message) as refused:
        extractor(*slots)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # noqa: S301 - ours


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"name": "a b", "kind": "number"}, "pattern"),
        ({"name": "a", "kind": "song"}, "kind"),
        ({"name": "a", "kind": "pattern"}, "a pattern belongs to kind `pattern`"),
        ({"name": "a", "kind": "number", "pattern": "a"}, "a pattern belongs to kind `pattern`"),
        ({"name": "a", "kind": "pattern", "pattern": "a" * 501}, "500"),
        ({"name": "a", "kind": "list"}, "needs `values`, or the name of a `gazetteer`"),
        ({"name": "a", "kind": "number", "values": [{"value": "x"}]}, "belong to kind `list`"),
        ({"name": "a", "kind": "list", "values": [{"value": ""}]}, "at least 1 character"),
        ({"name": "a", "kind": "list", "values": [{"value": "x", "synonyms": ["y" * 201]}]}, "201 characters"),
        ({"name": "a", "kind": "list", "values": [{"value": "x", "needs_cue": True}]}, "`needs_cue` needs `cues`"),
        ({"name": "a", "kind": "number", "cues": [" "]}, "`cues`"),
        ({"name": "a", "kind": "number", "unknown": 1}, "unknown"),
    ],
)
def test_a_definition_of_the_wrong_shape_is_refused(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlotDefinition.model_validate(definition)
