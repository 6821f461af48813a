"""From examples to a tuned head: minutes on a CPU, and torch in the process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deployments.states import States
from deployments.understanding import grams
from deployments.understanding.calibration import floored_log, weighed
from deployments.understanding.examples import different, explained
from deployments.understanding.grams import Floats, Sparse
from deployments.understanding.head import Head, Mixture
from deployments.understanding.kernel_ridge import Fit, Index, Kernel, chosen_landmarks, fit, one_hot
from deployments.understanding.tail import Tail
from deployments.understanding.training import LEAST, Encode, Progress, train
from deployments.understanding.tuned_head import TunedHead
from deployments.understanding.tuning import together, tune
from domain.errors import NotTunable
from domain.intents import TrainingEffort
from domain.understanding import Example

StatesOf = Callable[[Sequence[str]], Sequence[States]]

HELD = 4  # every fourth example of an intent calibrates, by layers that were tuned to the others
SAMPLE = 4000


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a tuned head needs beside vectors. `states_of`: texts → their states, of the same pass as their vectors;
    `base`: the layers that these go into."""

    states_of: StatesOf
    base: Tail


def train_any(
    effort: TrainingEffort,
    examples: Sequence[Example],
    encode: Encode,
    tuning: Tuning | None = None,
    *,
    embedder: str,
    descriptions: Mapping[str, str] | None = None,
    validation: Sequence[Example] = (),
    progress: Progress = lambda share, stage: None,
    seed: int = 0,
) -> Head | TunedHead:
    """A head of this effort; "tuned" needs `tuning`. Raises as `train`."""
    told: dict[str, Any] = {
        "embedder": embedder,
        "descriptions": descriptions,
        "validation": validation,
        "progress": progress,
        "seed": seed,
    }
    if effort != "tuned":
        return train(examples, encode, effort=effort, **told)
    if tuning is None:
        raise NotTunable("a tuned head needs an embedder with layers that can be tuned")
    return train_tuned(examples, encode, tuning, **told)


def train_tuned(
    examples: Sequence[Example],
    encode: Encode,
    tuning: Tuning,
    *,
    embedder: str,
    descriptions: Mapping[str, str] | None = None,
    validation: Sequence[Example] = (),
    progress: Progress = lambda share, stage: None,
    seed: int = 0,
) -> TunedHead:
    """As `train`, whose best head says what is out of scope. What `tuning.states_of` raises is passed on."""
    plain = train(
        examples,
        encode,
        embedder=embedder,
        descriptions=descriptions,
        validation=validation,
        progress=lambda share, stage: progress(0.2 * share, stage),
        seed=seed,
    )
    own = different(examples)
    both = (*own, *explained(plain.labels, descriptions or {}))
    texts = [example.text for example in both]
    numbers = {label: number for number, label in enumerate(plain.labels)}
    intents = np.array([numbers[example.intent] for example in both], np.int64)
    generator = np.random.default_rng(seed)
    landmarks = chosen_landmarks(intents, np.arange(len(own), len(texts)), generator)  # as `train` has chosen them
    words = grams.matrix(texts, plain.frequencies)
    held = _held(intents[: len(own)], generator)
    rest = np.setdiff1d(np.arange(len(intents)), held)
    layers = int(generator.integers(1 << 31))
    progress(0.2, "embedding")
    given = tuning.states_of(texts)
    embeddings = np.asarray(encode(texts), np.float16).astype(np.float32)  # as the plain head holds them

    trial = tune(
        tuning.base, [given[i] for i in rest], intents[rest], seed=layers, progress=_told(progress, 0.25, 0.55)
    )
    fitted, _ = _fitted(plain, words, intents, embeddings, together(trial, given), landmarks)
    alone = fitted.without_each()[held]
    first, second = weighed([alone, floored_log(alone)], intents[held])[0]
    tail = tune(tuning.base, given, intents, seed=layers, progress=_told(progress, 0.6, 0.95))
    tuned = together(tail, given)
    found, kernel = _fitted(plain, words, intents, embeddings, tuned, landmarks)
    progress(1.0, "done")
    mixture = Mixture(max(first, LEAST), second, 0.0)
    return TunedHead(plain, tail, kernel, tuned[landmarks], found.weights, mixture)


def _told(progress: Progress, start: float, end: float) -> Callable[[float], None]:
    return lambda share: progress(start + (end - start) * share, "tuning")


def _fitted(
    plain: Head, words: Sparse, intents: Index, embeddings: Floats, vectors: Floats, landmarks: Index
) -> tuple[Fit, Kernel]:
    """Over both kernels, and the tuned `vectors`' one. Its width keeps its measure: they lie further apart."""
    vectors[:] = vectors.astype(np.float16)
    kernel = replace(plain.kernel, width=plain.kernel.width * _spread(plain.landmarks) / _spread(vectors[landmarks]))
    targets = one_hot(intents, len(plain.labels))
    return fit(kernel, vectors, words, targets, landmarks, (plain.kernel, embeddings)), kernel


def _spread(vectors: Floats) -> float:
    """How much cosines differ, of at most SAMPLE vectors."""
    some = vectors[:: -(-len(vectors) // SAMPLE)]
    return float((some @ some.T).std())


def _held(intents: Index, generator: np.random.Generator) -> Index:
    """One in HELD of each intent's examples, ascending; those that are over go round the intents."""
    taken = []
    for number, intent in enumerate(np.unique(intents)):
        own = generator.permutation(np.flatnonzero(intents == intent))
        taken.append(own[number % HELD :: HELD])
    return np.sort(np.concatenate(taken))
