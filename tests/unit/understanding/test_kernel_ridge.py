"""Answers without an example or an intent are those of a fit that never saw them."""

import numpy as np
import pytest

from deployments.understanding import grams, kernel_ridge
from deployments.understanding.grams import Postings, Sparse, vector
from deployments.understanding.kernel_ridge import Fit, Kernel, chosen_landmarks, fit, one_hot
from tests.unit.understanding.toy import encode, examples

TEXTS = [example.text for example in examples()]
INTENTS = np.repeat(np.arange(4), 6)
KERNEL = Kernel(noise=0.3)
FREQUENCIES = grams.inverse_frequencies(TEXTS)


def fitted(rows: list[int], landmarks: list[int] | None = None) -> Fit:
    texts = [TEXTS[row] for row in rows]
    chosen = np.arange(len(rows)) if landmarks is None else np.array(landmarks)
    return fit(KERNEL, encode(texts), grams.matrix(texts, FREQUENCIES), one_hot(INTENTS[rows], 4), chosen)


def scores(found: Fit, rows: list[int], text: str) -> np.ndarray:
    kept = [TEXTS[rows[i]] for i in found.landmarks]
    words = Postings(grams.matrix(kept, FREQUENCIES)).product(*vector(text, FREQUENCIES))
    return KERNEL.of(encode(kept) @ encode([text])[0], words) @ found.weights


def test_leaving_one_out_is_what_a_fit_without_it_says() -> None:
    everything = list(range(24))
    alone = fitted(everything).without_each()
    for left in (0, 7, 23):
        rest = [row for row in everything if row != left]
        assert alone[left] == pytest.approx(scores(fitted(rest), rest, TEXTS[left]), abs=2e-3)


def test_blocks_put_the_inverse_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(list(range(24)))
    monkeypatch.setattr(kernel_ridge, "BLOCK", 7)
    assert fitted(list(range(24))).spread == pytest.approx(whole.spread, abs=1e-6)
    assert whole.spread == pytest.approx(whole.spread.T)


def test_leaving_an_intent_out_is_what_a_fit_without_it_says() -> None:
    everything, group = list(range(24)), list(range(6, 12))
    rest = [row for row in everything if row not in group]
    model = fitted(rest)
    expected = [scores(model, rest, TEXTS[row]) for row in group]
    assert fitted(everything).without(np.array(group)) == pytest.approx(np.stack(expected), abs=2e-3)


def test_landmarks_that_span_all_examples_give_the_exact_answer_and_so_does_leaving_out() -> None:
    twice = [*range(24), *range(24)]
    exact, near = fitted(twice), fitted(twice, list(range(24)))
    assert exact.exact and not near.exact
    assert near.without_each() == pytest.approx(exact.without_each(), abs=0.02)
    group = np.array([*range(6), *range(24, 30)])
    assert near.without(group) == pytest.approx(exact.without(group), abs=0.02)
    assert scores(near, twice, TEXTS[3]) == pytest.approx(scores(exact, twice, TEXTS[3]), abs=0.02)


def test_landmarks_are_shared_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ridge, "LANDMARKS", 12)
    monkeypatch.setattr(kernel_ridge, "EXACT", 61)
    intents = np.array([0] * 40 + [1] * 20 + [0, 1])
    kept = chosen_landmarks(intents, np.array([60, 61]), np.random.default_rng(0))
    assert len(kept) == 12 and {60, 61} <= set(kept.tolist())
    assert sorted(kept.tolist()) == kept.tolist()
    assert abs(int((intents[kept] == 0).sum()) - 7.7) < 1


def test_grams_know_no_case_and_every_number_is_one_word() -> None:
    assert grams.counted("Order 4410, PLEASE") == grams.counted("order 7 please")
    assert grams.counted("order please") != grams.counted("please order")


def test_postings_multiply_as_the_matrix_does() -> None:
    rows = grams.matrix(TEXTS, FREQUENCIES)
    dense = np.zeros((len(TEXTS), grams.BUCKETS), np.float32)
    for row in range(len(TEXTS)):
        part = slice(rows.starts[row], rows.starts[row + 1])
        dense[row, rows.buckets[part]] = rows.values[part]
    buckets, values = vector(TEXTS[4], FREQUENCIES)
    found = Postings(rows).product(buckets, values)
    assert found == pytest.approx(dense[:, buckets] @ values, abs=1e-5)
    assert found[4] == pytest.approx(1, abs=1e-3)
    empty = Sparse(np.zeros(2, np.int32), np.zeros(0, np.uint16), np.zeros(0, np.float32))
    assert Postings(empty).product(buckets, values) == pytest.approx(np.zeros(1))
