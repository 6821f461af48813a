"""The vectors that the benchmark of search makes, and its brute force."""

import numpy as np

from benchmarks.vectors.data import HELD_OUT, stored_and_asked
from benchmarks.vectors.measure import _exact


def texts() -> np.ndarray:
    found = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_one_seed_makes_the_same_unit_vectors_again_and_another_makes_others():
    stored, asked = stored_and_asked(texts(), 500, 30, seed=1)
    assert stored.shape == (500, 16) and asked.shape == (30, 16)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([stored, asked]), axis=1), 1, atol=1e-5)
    again, other = stored_and_asked(texts(), 500, 30, seed=1), stored_and_asked(texts(), 500, 30, seed=2)
    np.testing.assert_array_equal(stored, again[0])
    assert not np.allclose(stored, other[0])


def test_questions_come_from_texts_that_none_of_the_stored_ones_come_from():
    known = texts()
    held_out = int(len(known) * HELD_OUT)
    stored, asked = stored_and_asked(known, 180, 20, seed=1)
    assert (np.argmax(stored @ known.T, axis=1) >= held_out).mean() > 0.95
    assert (np.argmax(asked @ known.T, axis=1) < held_out).mean() > 0.95


def test_brute_force_finds_the_nearest_of_those_allowed():
    stored = np.eye(16, dtype=np.float32)
    question = np.arange(16, dtype=np.float32)[None]
    assert _exact(stored, question, np.arange(16)) == [set(range(6, 16))]
    assert _exact(stored, question, np.array([1, 3, 5])) == [{1, 3, 5}]
