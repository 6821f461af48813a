"""A complexity scorer of one's own, from feedback: the packaged one, corrected as far as the examples bear it out.

A logistic regression on three things: the prior scorer's logit, whose weight is pulled towards 1; a constant; and the
features and embedding, whose weights are pulled towards 0. How strongly is chosen by cross-validation on the examples,
and with few of them that leaves little more than a recalibration. About 50 examples are of use.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.complexity import ComplexityScorer, pack, packaged, to_bytes, unpack
from deployments.complexity_features import features
from deployments.complexity_parts import Matrix, Vector, sigmoid

FORMAT, VERSION = "brain-complexity-adapted", 1
FEWEST = 20
FOLDS = 5
STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # pulls towards 0; the first allows little correction
PRIOR_STRENGTH = 10.0  # pulls the weight of the prior's logit towards 1
COMPONENTS = 128  # principal ones of features and embedding, at most
STEPS, SETTLED = 50, 1e-6
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AdaptedScorer:
    """`slope` and `bias` of the prior's logit, and `weights` (features + dimensions,) of the text and its embedding."""

    prior: ComplexityScorer
    slope: float
    bias: float
    weights: Vector
    examples: int

    def score(self, text: str, embedding: Sequence[float] | None) -> float:
        """As of `ComplexityScorer`: the probability, in [0, 1], that the cheap model's answer will not do."""
        vectors = None if embedding is None else np.asarray(embedding, np.float32)[None]
        return float(self.scores([text], vectors)[0])

    def scores(self, texts: Sequence[str], embeddings: Matrix | None) -> Vector:
        """Many at once: `embeddings` (texts, dimensions) → (texts,)."""
        logits, inputs = _inputs(self.prior, texts, embeddings)
        return sigmoid(self.slope * logits + self.bias + inputs @ self.weights)

    def to_bytes(self) -> bytes:
        header = {"prior": fingerprint(self.prior), "examples": self.examples}
        scalars = np.array([self.slope, self.bias])
        return pack(FORMAT, VERSION, header, {"scalars": scalars, "weights": self.weights})


def fit(
    texts: Sequence[str],
    embeddings: Sequence[Sequence[float]],
    outcomes: Sequence[bool],
    prior: ComplexityScorer | None = None,
) -> AdaptedScorer:
    """Learn from feedback: `outcomes` are true where the cheap answer did not do and the strong one was needed.

    `embeddings` (texts, dimensions); `prior`: the packaged scorer, if not given. The same examples give the same.
    Raises `ValueError` for fewer than 20 examples, for outcomes that are all the same, and for unequal lengths.
    """
    if not len(texts) == len(embeddings) == len(outcomes):
        raise ValueError("there must be as many texts as embeddings and outcomes")
    wanted = np.asarray(outcomes, np.float64)
    if len(texts) < FEWEST or not 0 < wanted.sum() < len(texts):
        raise ValueError(f"at least {FEWEST} examples are needed, some of them true and some false")
    prior = prior or packaged()
    logits, inputs = _inputs(prior, texts, np.asarray(embeddings, np.float32))
    components = _components(inputs)
    design = np.column_stack((logits, np.ones(len(texts)), inputs @ components.T)).astype(np.float64)
    found = _solved(design, wanted, _strength(design, wanted))
    weights = (found[2:] @ components).astype(np.float32)
    return AdaptedScorer(prior, float(found[0]), float(found[1]), weights, len(texts))


def from_bytes(data: bytes, prior: ComplexityScorer | None = None) -> AdaptedScorer:
    """Raises `ValueError` for what is not an adapted scorer of this version, or one of another prior."""
    header, arrays = unpack(data, FORMAT, VERSION)
    prior = prior or packaged()
    if header.get("prior") != fingerprint(prior):
        raise ValueError("it was adapted from another scorer than this one: fit it again")
    try:
        weights, (slope, bias) = arrays["weights"].astype(np.float32), arrays["scalars"]
        return AdaptedScorer(prior, float(slope), float(bias), _shaped(weights, prior), int(header["examples"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a part is missing or of another kind: {error}") from error


def fingerprint(scorer: ComplexityScorer) -> str:
    """What the corrections belong to."""
    return hashlib.sha256(to_bytes(scorer)).hexdigest()


def _shaped(weights: Vector, prior: ComplexityScorer) -> Vector:
    wide = len(prior.gate.standard.mean) + prior.dimensions
    if weights.shape != (wide,):
        raise ValueError(f"{wide} weights are needed")
    return weights


def _inputs(prior: ComplexityScorer, texts: Sequence[str], embeddings: Matrix | None) -> tuple[Vector, Matrix]:
    """The prior's logits (texts,), and features and embedding (texts, features + dimensions), of length about 1."""
    found = features(texts)
    scores = np.clip(prior.scores(found, embeddings), 1e-4, 1 - 1e-4)
    inputs = prior.gate.standard(found.rows, embeddings)
    return np.log(scores / (1 - scores)), inputs / np.float32(np.sqrt(inputs.shape[1]))


def _components(inputs: Matrix) -> Matrix:
    """(components, features + dimensions): the directions in which the examples differ."""
    _, _, found = np.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
    return np.asarray(found[:COMPONENTS], np.float32)


def _strength(design: Values, wanted: Values) -> float:
    """The pull whose regression says best, in log loss, what is in the fold that it has not seen."""
    fold = np.empty(len(wanted), np.int64)  # of each outcome as many in every fold
    fold[np.argsort(wanted, kind="stable")] = np.arange(len(wanted)) % FOLDS

    def loss(strength: float) -> float:
        total = 0.0
        for number in range(FOLDS):
            unseen = fold == number
            said = sigmoid(design[unseen] @ _solved(design[~unseen], wanted[~unseen], strength))
            right = np.where(wanted[unseen] > 0, said, 1 - said)
            total -= float(np.log(np.maximum(right, 1e-6)).sum())
        return total

    return min(STRENGTHS, key=loss)


def _solved(design: Values, wanted: Values, strength: float) -> Values:
    """Newton's method on the penalised log loss; columns: the prior's logit, the constant, then the components."""
    pull = np.full(design.shape[1], strength)
    pull[:2] = PRIOR_STRENGTH, 1e-3
    target = np.zeros(design.shape[1])
    target[0] = 1.0
    found = target.copy()
    for _ in range(STEPS):
        said = sigmoid(design @ found).astype(np.float64)
        gradient = design.T @ (said - wanted) + pull * (found - target)
        hessian = (design * (said * (1 - said))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(hessian, gradient)
        found -= step
        if np.abs(step).max() < SETTLED:
            break
    return found
