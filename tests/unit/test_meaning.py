"""What a text means by a head's word: slots, doubt, and what is out of scope."""

from collections.abc import Sequence

import pytest

from deployments.meaning import Meaning
from domain.analysis import parameters
from domain.clarifying import OPENING, Clarification, clarification
from domain.understanding import Entity, Prediction, Ranked

ORDER = {"slots": [{"name": "order", "kind": "order_number"}], "needs_products": True}


class Says:
    """A head that says the same of every text."""

    embedder = "e@1"

    def __init__(self, ranked: dict[str, float], out: bool = False) -> None:
        self.prediction = Prediction(tuple(Ranked(*one) for one in ranked.items()), 0.25, out)
        self.labels = tuple(ranked)

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        return self.prediction

    def to_bytes(self) -> bytes:
        return b""


def of(text: str, ranked: dict[str, float], out: bool = False, **definitions):
    return Meaning(7, Says(ranked, out), definitions).of(text, [1.0])


def test_a_sure_text_has_its_intent_its_slots_and_the_whole_ranking():
    found = of("where is A-1234", {"parcel": 0.8, "refund": 0.2}, parcel=ORDER)
    assert (found.intent.name, found.intent.confidence) == ("parcel", 0.8)
    assert found.intent.parameters == {"order": "A-1234"} and found.needs_products
    assert [(one.slot, one.text, one.start, one.end) for one in found.entities] == [("order", "A-1234", 9, 15)]
    assert [one.name for one in found.ranked] == ["parcel", "refund"] and found.version == 7
    assert found.clarification is None and not found.out_of_scope and found.out_of_scope_score == 0.25


def test_slots_are_those_of_the_intent_that_is_meant():
    found = of("where is A-1234", {"refund": 0.8, "parcel": 0.2}, parcel=ORDER)
    assert found.entities == () and not found.needs_products


def test_out_of_scope_is_other_and_asks_nothing():
    found = of("A-1234", {"parcel": 0.3, "refund": 0.2}, out=True, parcel=ORDER)
    assert (found.intent.name, found.intent.confidence, found.intent.parameters) == ("other", 0.7, {})
    assert found.ranked[0].name == "parcel" and found.clarification is None and not found.needs_products
    assert [one.value for one in found.entities] == ["A-1234"], "of the intent that it is nearest to"


def test_a_slot_that_this_code_does_not_know_is_left_out():
    broken = {"slots": [{"name": "x", "kind": "of a later version"}]}
    assert of("hello", {"parcel": 0.8, "refund": 0.2}, parcel=broken).entities == ()


def test_values_of_one_slot_are_a_list_where_they_are_several():
    found = [
        Entity("a", 1, "1", 0, 1),
        Entity("b", "x", "x", 2, 3),
        Entity("a", 2, "2", 4, 5),
        Entity("a", 1, "1", 6, 7),
    ]
    assert parameters(found) == {"a": [1, 2], "b": "x"}


@pytest.mark.parametrize(
    ("ranked", "asked"),
    [
        ({"refund": 0.5, "parcel": 0.5}, None),
        ({"refund": 0.4, "parcel": 0.35, "opening_hours": 0.05}, (["refund", "parcel"], "“refund” or “parcel”?")),
        ({"refund": 0.4, "other": 0.39, "b": 0.01}, (["refund"], "about “refund”?")),
        ({"a_b": 0.3, "b-c": 0.3, "c": 0.2, "d": 0.2}, (["a_b", "b-c", "c"], "“a b”, “b c” or “c”?")),
        ({"other": 0.9, "a": 0.1}, (["a"], "“a”?")),
        ({"other": 1.0}, None),
    ],
)
def test_in_doubt_the_question_names_the_likely_intents(ranked, asked):
    found = clarification(Says(ranked).prediction.ranked)
    if asked is None:
        assert found is None
    else:
        assert isinstance(found, Clarification) and list(found.intents) == asked[0]
        assert found.question.startswith(OPENING) and found.question.endswith(asked[1])


def test_intents_may_have_titles():
    found = clarification(Says({"a": 0.4, "b": 0.3}).prediction.ranked, {"b": "sending something back"})
    assert found is not None and "“a” or “sending something back”" in found.question
