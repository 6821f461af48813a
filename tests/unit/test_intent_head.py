"""The head over embeddings and the examples it learns from, without a model."""

from pathlib import Path

import numpy as np
import pytest

from deployments.intent_head import GENERAL, Head, fingerprint, load, read_examples, save

HEAD = Head(("a", "b"), np.array([[1, 0], [0, 1]], np.float32), np.zeros(2, np.float32))


def test_every_intent_has_enough_examples_and_none_belongs_to_two() -> None:
    examples = read_examples(GENERAL)
    intents = [intent for _, intent in examples]
    assert len({text.lower() for text, _ in examples}) == len(examples)
    assert len(set(intents)) == 16
    assert min(intents.count(intent) for intent in set(intents)) >= 25


def test_other_examples_or_another_model_need_another_head() -> None:
    examples = [("hello", "greeting"), ("pay", "payment")]
    assert fingerprint("a", examples) == fingerprint("a", examples[::-1])
    assert len({fingerprint("a", examples), fingerprint("b", examples), fingerprint("a", examples[:1])}) == 3


def test_probabilities_are_a_softmax_and_survive_large_logits() -> None:
    assert HEAD.probabilities([1, 0]) == pytest.approx([0.7310586, 0.2689414])
    assert HEAD.probabilities([1e4, 0]) == pytest.approx([1, 0])


def test_a_saved_head_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    save(HEAD, tmp_path / "new" / "head.npz")
    found = load(tmp_path / "new" / "head.npz", 2)
    assert found.labels == HEAD.labels
    assert (found.weights == HEAD.weights).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["head.npz"]


def test_a_head_with_numbers_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    save(Head(HEAD.labels, HEAD.weights * np.nan, HEAD.bias), tmp_path / "head.npz")
    with pytest.raises(ValueError, match="finite"):
        load(tmp_path / "head.npz", 2)
