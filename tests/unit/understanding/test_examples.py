"""What a model can be trained from."""

import pickle

import pytest

from deployments.understanding import check_examples
from deployments.understanding.examples import LONGEST, different, explained
from domain.errors import InvalidExamples
from domain.understanding import Example
from tests.unit.understanding.toy import examples


def refusal(*more: Example, without: str = "") -> str:
    with pytest.raises(InvalidExamples) as caught:
        check_examples([example for example in examples() if example.intent != without] + list(more))
    assert caught.value.status == 422
    return str(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301


def test_good_examples_pass() -> None:
    check_examples(examples())


def test_one_intent_is_not_enough_and_is_named() -> None:
    with pytest.raises(InvalidExamples, match=r"2 intents or more.*'refund'"):
        check_examples([example for example in examples() if example.intent == "refund"])
    with pytest.raises(InvalidExamples, match="none"):
        check_examples([])


def test_an_intent_with_four_examples_is_named() -> None:
    few = [Example(f"please cancel number {letter}", "cancel") for letter in "abcd"]
    assert refusal(*few) == "intent 'cancel' has 4 different examples; 5 or more are needed"


def test_the_same_text_five_times_is_one_example() -> None:
    assert "'cancel' has 1 different" in refusal(*[Example("cancel it", "cancel")] * 5)


def test_a_text_under_two_names_is_shown_with_both_whatever_its_case_and_spaces() -> None:
    message = refusal(Example("  HELLO   there", "refund"))
    assert "'  HELLO   there'" in message
    assert "'greeting' and 'refund'" in message


def test_a_text_without_characters_is_told_by_its_number() -> None:
    assert f"example {len(examples()) + 1}, of intent 'refund', has no text" in refusal(Example(" \n", "refund"))


def test_a_text_that_is_too_long_is_shown_cut() -> None:
    message = refusal(Example("x" * (LONGEST + 1), "refund"))
    assert "32001 characters" in message and "32000 are allowed" in message
    assert len(message) < 300


def test_an_intent_needs_a_name() -> None:
    assert "'cancel it'" in refusal(Example("cancel it", " "))


def test_names_and_descriptions_say_what_intents_are() -> None:
    said = explained(["order_status", "cancelOrder", "?"], {"order_status": "Where a parcel is."})
    assert said == [
        Example("order status", "order_status"),
        Example("Where a parcel is.", "order_status"),
        Example("cancel Order", "cancelOrder"),
    ]


def test_of_equal_texts_the_first_stays() -> None:
    assert different([Example("Hi", "a"), Example("hi ", "a"), Example("yo", "a")]) == [
        Example("Hi", "a"),
        Example("yo", "a"),
    ]
