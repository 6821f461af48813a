"""Heads over vectors of the test's making: what is learned, what is refused, what is measured."""

from collections.abc import Sequence

import numpy as np
import pytest

from deployments.heads import Confusion, check_examples, evaluate, from_bytes, train
from domain.errors import InvalidExamples
from domain.understanding import Example

WORDS = ("refund", "parcel", "hello")


class Words:
    """Texts by the words that they hold."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]):
        self.asked += texts
        found = np.array([[1.0 * (word in text) for word in WORDS] + [0.1] for text in texts], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def examples(*names: str) -> list[Example]:
    return [Example(f"{name} {n}", f"{name}_intent") for name in names for n in range(5)]


@pytest.mark.parametrize("names", [WORDS, WORDS[:2]])
def test_a_head_says_what_it_learned_also_after_it_was_stored(names):
    model = train(examples(*names), Words(), embedder="words@1")
    again = from_bytes(model.to_bytes())
    assert model.embedder == again.embedder == "words@1" and set(again.labels) == {f"{name}_intent" for name in names}
    for name in names:
        [vector] = Words()([name])
        found = again.predict(name, vector)
        assert found == model.predict(name, vector)
        assert found.ranked[0].name == f"{name}_intent" and not found.out_of_scope
        assert sum(one.confidence for one in found.ranked) == pytest.approx(1, abs=1e-4)
        assert found.out_of_scope_score == pytest.approx(1 - found.ranked[0].confidence)


def test_the_best_head_learns_from_descriptions_too():
    words, told = Words(), []
    train(
        examples(*WORDS),
        words,
        descriptions={"hello_intent": "greets", "gone": "x"},
        effort="best",
        embedder="",
        progress=lambda share, stage: told.append(share),
    )
    assert "greets" in words.asked and "x" not in words.asked
    assert told == sorted(told) and told[-1] == 1


@pytest.mark.parametrize(
    ("added", "words", "param"),
    [
        (Example(" ", "a"), r"example 10 \(of 'a'\) has no text", "examples.10.text"),
        (Example("x", ""), r"example 10 \('x'\) has no intent", "examples.10.intent"),
        (
            Example("Refund  3", "parcel_intent"),
            r"example 10 \('Refund  3'\) is of 'parcel_intent', and example 3 .* of 'refund_intent'",
            "examples.10",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_named(added, words, param):
    with pytest.raises(InvalidExamples, match=words) as error:
        train([*examples("refund", "parcel"), added], Words(), embedder="words@1")
    assert error.value.param == param


@pytest.mark.parametrize("few", [[], examples("refund"), [Example("x", "other")]])
def test_one_intent_is_nothing_to_choose_from(few):
    with pytest.raises(InvalidExamples, match="at least two need examples"):
        check_examples(few)


@pytest.mark.parametrize(
    "artefact", [b"", b"no head", train(examples(*WORDS), Words(), embedder="words@1").to_bytes()[:-30]]
)
def test_what_is_no_head_is_refused(artefact):
    with pytest.raises(ValueError, match="cannot be read"):
        from_bytes(artefact)


def test_an_evaluation_counts_by_intent():
    model = train(examples(*WORDS), Words(), embedder="words@1")
    asked = [Example("refund", "refund_intent"), Example("parcel", "refund_intent"), Example("hello", "hello_intent")]
    found = evaluate(model, asked, Words())
    assert found.accuracy == pytest.approx(2 / 3)
    refund = next(one for one in found.per_intent if one.intent == "refund_intent")
    assert (refund.precision, refund.recall, refund.examples) == (1, 0.5, 2)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert found.confusions == (Confusion("refund_intent", "parcel_intent", 1),)
    confidences = [model.predict(one.text, Words()([one.text])[0]).ranked[0].confidence for one in asked]
    assert found.expected_calibration_error == pytest.approx(abs(sum(confidences) - 2) / 3, abs=0.02)
