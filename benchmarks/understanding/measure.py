"""A method on a setting: how often it is right, how well it knows, and what it costs."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.understanding.data import Setting, Vectors, sampled
from benchmarks.understanding.methods import STATED, Method, Predicts
from deployments.understanding.calibration import FALSE_ALARMS
from deployments.understanding.evaluation import scored
from domain.understanding import Example, Prediction


@dataclass(frozen=True, slots=True)
class Row:
    """Shares in [0, 1]; None where a setting has nothing out of scope, or a method no threshold of its own.

    `recall`: of what is out of scope, at the threshold that refuses FALSE_ALARMS of the validation texts; `alarms`: the
    share of test texts in scope that it refuses. `own_…`: at the method's own threshold, from training examples alone.
    `training`: processor seconds without embedding. `predicting`: processor milliseconds a message, embedding given.
    """

    accuracy: float
    macro_f1: float
    calibration_error: float
    auroc: float | None
    recall: float | None
    alarms: float | None
    own_recall: float | None
    own_alarms: float | None
    training: float
    predicting: float


def measure(setting: Setting, method: Method, vectors: Vectors, seed: int) -> Row:
    """Train on the setting's training part, tune nothing, and look at its test part once."""
    examples = agreed(sampled(setting.train, setting.shots, seed))
    vectors.encode([example.text for example in examples])
    if method in STATED:
        vectors.states([example.text for example in (*examples, *setting.test, *setting.validation, *setting.foreign)])
    began = time.process_time()
    model = method(examples, vectors, seed)
    training = time.process_time() - began
    vectors.encode([example.text for example in setting.test])
    began = time.process_time()
    known = _answers(model, setting.test, vectors)
    predicting = 1000 * (time.process_time() - began) / len(known)
    found = scored(
        [example.intent for example in setting.test],
        [(answer.ranked[0].name, answer.ranked[0].confidence) for answer in known],
    )
    auroc = recall = alarms = own_recall = own_alarms = None
    if setting.foreign:
        foreign = _answers(model, setting.foreign, vectors)
        inside, outside = _scores(known), _scores(foreign)
        threshold = np.quantile(_scores(_answers(model, setting.validation, vectors)), 1 - FALSE_ALARMS)
        auroc = area(inside, outside)
        recall, alarms = float((outside > threshold).mean()), float((inside > threshold).mean())
        if any(answer.out_of_scope for answer in foreign):
            own_recall = statistics.fmean(answer.out_of_scope for answer in foreign)
            own_alarms = statistics.fmean(answer.out_of_scope for answer in known)
    return Row(
        found.accuracy,
        found.macro_f1,
        found.expected_calibration_error,
        auroc,
        recall,
        alarms,
        own_recall,
        own_alarms,
        training,
        predicting,
    )


def agreed(examples: Sequence[Example]) -> list[Example]:
    """Without texts that the data gives to two intents: the later ones are left out."""
    from deployments.understanding.examples import normalised

    names: dict[str, str] = {}
    return [
        example for example in examples if names.setdefault(normalised(example.text), example.intent) == example.intent
    ]


def mean(rows: Sequence[Row]) -> Row:
    """Over seeds."""
    tables = [asdict(row) for row in rows]
    return Row(
        **{
            name: None if tables[0][name] is None else statistics.fmean(table[name] for table in tables)
            for name in tables[0]
        }
    )


def area(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Under the receiver operating characteristic: how often what is outside scores higher."""
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    return float(roc_auc_score(truth, np.concatenate([inside, outside])))


def _answers(model: Predicts, examples: Sequence[Example], vectors: Vectors) -> list[Prediction]:
    embeddings = vectors.encode([example.text for example in examples])
    return [model.predict(example.text, embedding) for example, embedding in zip(examples, embeddings, strict=True)]


def _scores(answers: Sequence[Prediction]) -> NDArray[np.float64]:
    return np.array([answer.out_of_scope_score for answer in answers])
