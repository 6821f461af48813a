"""The artefact: what names intents, given a text and its embedding, with numpy alone."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.understanding.calibration import Scope, floored_log, log_softmax, log_total
from deployments.understanding.grams import BUCKETS, Floats, Postings, Sparse, vector
from deployments.understanding.kernel_ridge import Kernel
from domain.understanding import Prediction, Ranked

FORMAT = 1
RANKED = 10


@dataclass(frozen=True, slots=True)
class Linear:
    """Multinomial logistic regression: `weights` (intents, dimensions), `bias` (intents,)."""

    weights: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Mixture:
    """How much each view counts: the kernel's scores, their logs, the logistic regression's log probabilities."""

    scores: float
    logs: float
    linear: float


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """An `IntentModel`: kernel ridge regression over `landmarks` (n, dimensions) and `words` (n rows), `weights` (n,
    intents), mixed with a logistic regression; `frequencies` (BUCKETS,) weigh the words. All float32, never changed.
    """

    labels: tuple[str, ...]
    embedder: str
    kernel: Kernel
    landmarks: Floats
    words: Sparse
    frequencies: Floats
    weights: Floats
    linear: Linear
    mixture: Mixture
    scope: Scope
    _postings: Postings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_postings", Postings(self.words))

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        """Raises `ValueError` for an embedding of another length."""
        scores, logs = self.scores(text, embedding)
        best = np.argsort(-logs, kind="stable")[:RANKED]
        ranked = tuple(Ranked(self.labels[i], float(np.exp(logs[i]))) for i in best)
        foreign = self.scope.score(float(log_total(scores)))
        return Prediction(ranked, foreign, foreign > self.scope.threshold)

    def scores(self, text: str, embedding: Sequence[float] | Floats) -> tuple[Floats, Floats]:
        """(intents,) scores of the kernel, and log probabilities of the mixture."""
        given = np.asarray(embedding, np.float32)
        if given.shape != self.landmarks.shape[1:]:
            raise ValueError(f"an embedding has {self.landmarks.shape[1]} dimensions here, and this one {given.shape}")
        near = self.kernel.of(self.landmarks @ given, self.shared_words(text))
        scores: Floats = near @ self.weights
        mixed = self.mixture.scores * scores + self.mixture.logs * floored_log(scores)
        if self.mixture.linear:
            mixed += self.mixture.linear * log_softmax(self.linear.weights @ given + self.linear.bias)
        return scores, log_softmax(mixed)

    def shared_words(self, text: str) -> Floats:
        """(n,) tf-idf cosines of a text with the landmarks."""
        return self._postings.product(*vector(text, self.frequencies))

    def to_bytes(self) -> bytes:
        about = {
            "format": FORMAT,
            "labels": self.labels,
            "embedder": self.embedder,
            "kernel": asdict(self.kernel),
            "mixture": asdict(self.mixture),
            "scope": asdict(self.scope),
        }
        file = io.BytesIO()
        np.savez_compressed(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            landmarks=self.landmarks.astype(np.float16),
            starts=self.words.starts,
            buckets=self.words.buckets,
            values=self.words.values.astype(np.float16),
            frequencies=self.frequencies.astype(np.float16),
            weights=self.weights,
            linear=self.linear.weights,
            bias=self.linear.bias,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """Raises `ValueError` for what is broken, of another shape or format, or holds numbers that are not finite."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop("about").tobytes())
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            floats = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"}
            head = cls(
                tuple(map(str, about["labels"])),
                str(about["embedder"]),
                Kernel(**about["kernel"]),
                floats["landmarks"],
                Sparse(_whole(arrays["starts"], np.int32), _whole(arrays["buckets"], np.uint16), floats["values"]),
                floats["frequencies"],
                floats["weights"],
                Linear(floats["linear"], floats["bias"]),
                Mixture(**about["mixture"]),
                Scope(**about["scope"]),
            )
            _check(head)
        except Exception as error:  # zipfile, zlib, json and numpy each have errors of their own for broken bytes
            raise ValueError(f"these bytes hold no intent head: {error}") from error
        return head


def _whole(array: NDArray[Any], kind: type) -> NDArray[Any]:
    if array.dtype != kind:
        raise ValueError(f"{array.dtype} where {kind.__name__} belongs")
    return array


def _check(head: Head) -> None:
    intents, landmarks, words = len(head.labels), len(head.landmarks), head.words
    dimensions = head.landmarks.shape[1]
    shapes = (
        (head.weights, (landmarks, intents)),
        (head.linear.weights, (intents, dimensions)),
        (head.linear.bias, (intents,)),
        (head.frequencies, (BUCKETS,)),
        (words.starts, (landmarks + 1,)),
        (words.buckets, (len(words.values),)),
    )
    if intents < 2 or len(set(head.labels)) != intents or any(array.shape != shape for array, shape in shapes):
        raise ValueError("another shape")
    if words.starts[0] != 0 or words.starts[-1] != len(words.values) or (np.diff(words.starts) < 0).any():
        raise ValueError("rows of words that do not follow one another")
    if (words.buckets >= BUCKETS).any():
        raise ValueError("a word outside its table")
    numbers = (*asdict(head.kernel).values(), *asdict(head.mixture).values(), *asdict(head.scope).values())
    arrays = (head.landmarks, head.weights, head.linear.weights, head.linear.bias, head.frequencies, words.values)
    if not (np.isfinite(np.array(numbers, np.float64)).all() and all(np.isfinite(array).all() for array in arrays)):
        raise ValueError("numbers that are not finite")
