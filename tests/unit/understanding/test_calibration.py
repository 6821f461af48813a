"""Scores become probabilities that hold, and distances become a threshold."""

from itertools import pairwise

import numpy as np
import pytest

from deployments.understanding.calibration import FALSE_ALARMS, floored_log, log_softmax, log_total, scope, weighed
from deployments.understanding.evaluation import calibration_error, evaluate, scored
from deployments.understanding.training import train
from domain.errors import InvalidExamples
from domain.understanding import Example
from tests.unit.understanding.toy import encode, examples


def drawn(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose softmax, at `scale`, is how often each intent is right."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2000, 5)) * 2
    probabilities = np.exp(log_softmax(logits))
    intents = np.array([generator.choice(5, p=row / row.sum()) for row in probabilities])
    return (logits / scale).astype(np.float32), intents


def test_a_temperature_is_found_again() -> None:
    scores, intents = drawn(7.0)
    (weight,), _ = weighed([scores], intents)
    assert weight == pytest.approx(7.0, rel=0.15)
    confidences = np.exp(log_softmax(weight * scores))
    assert calibration_error(confidences.max(1), confidences.argmax(1) == intents) < 0.04


def test_a_view_that_says_nothing_gets_little_weight() -> None:
    scores, intents = drawn(1.0)
    noise = np.random.default_rng(1).normal(size=scores.shape).astype(np.float32)
    (good, useless), loss = weighed([scores, noise], intents)
    assert useless < 0.1 * good
    assert loss <= weighed([scores], intents)[1] + 1e-6


def test_the_threshold_lets_the_agreed_share_be_refused_and_the_score_falls_with_the_total() -> None:
    generator = np.random.default_rng(2)
    known, foreign = generator.normal(5, 1, 500), generator.normal(1, 1, 150)
    found = scope(known.astype(np.float32), foreign.astype(np.float32))
    refused = [found.score(total) > found.threshold for total in known]
    assert np.mean(refused) == pytest.approx(FALSE_ALARMS, abs=0.003)
    assert np.mean([found.score(total) > found.threshold for total in foreign]) > 0.9
    falling = [found.score(total) for total in np.linspace(0, 6, 50)]
    assert all(before > after for before, after in pairwise(falling))
    assert min(falling) >= 0 and max(falling) <= 1


def test_a_score_falls_even_where_the_foreign_look_known() -> None:
    found = scope(np.full(50, 1, np.float32), np.full(50, 2, np.float32))
    assert found.score(0.5) > found.score(1.5)


def test_logs_bend_probabilities_and_keep_their_order() -> None:
    scores = np.array([-0.2, 0.0, 0.1, 0.4, 0.9], np.float32)
    bent = 3 * scores + 2 * floored_log(scores)
    assert list(np.argsort(bent)) == [0, 1, 2, 3, 4]
    assert np.isfinite(bent).all()


def test_a_total_is_a_log_of_summed_powers() -> None:
    assert log_total(np.array([[0.0, 0.0], [1000.0, 0.0]], np.float32)) == pytest.approx([np.log(2), 1000])


def test_an_evaluation_counts_by_intent_and_names_confusions() -> None:
    found = scored(["a", "a", "a", "b"], [("a", 0.9), ("b", 0.6), ("b", 0.7), ("b", 0.8)])
    assert found.accuracy == 0.5
    assert [(one.intent, one.examples, one.precision, one.recall) for one in found.per_intent] == [
        ("a", 3, 1.0, pytest.approx(1 / 3)),
        ("b", 1, pytest.approx(1 / 3), 1.0),
    ]
    assert found.macro_f1 == pytest.approx(0.5)
    assert [(one.intent, one.predicted, one.count) for one in found.confusions] == [("a", "b", 2)]
    assert found.expected_calibration_error == pytest.approx((0.1 + 0.6 + 0.7 + 0.2) / 4)


def test_a_model_is_evaluated_on_examples_of_names_that_it_does_not_know_too() -> None:
    model = train(examples(), encode, embedder="toy@1", effort="first")
    found = evaluate(model, [Example("where is my parcel", "order_status"), Example("sing a song", "music")], encode)
    assert found.accuracy == 0.5
    assert {score.intent: score.recall for score in found.per_intent} == {"music": 0.0, "order_status": 1.0}


def test_nothing_to_evaluate_with_is_an_error() -> None:
    with pytest.raises(InvalidExamples):
        evaluate(train(examples(), encode, embedder="toy@1", effort="first"), [], encode)
