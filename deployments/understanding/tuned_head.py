"""A head over vectors of its own: the encoder's last layers, tuned to its intents, and a kernel over what they make."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.states import States
from deployments.understanding.calibration import log_softmax, log_total
from deployments.understanding.grams import Floats
from deployments.understanding.head import RANKED, Head, Linear, Mixture
from deployments.understanding.kernel_ridge import Kernel
from deployments.understanding.tail import ARRAYS, Tail, shapes
from domain.understanding import Prediction, Ranked

FORMAT = 2


@dataclass(frozen=True, slots=True, eq=False)
class TunedHead:
    """An `IntentModel` that needs an embedder's states beside the embedding: `over` ranks what `tail` makes of them,
    `plain` says how far a text is out of scope. `weights`: of the log probabilities of `plain` and `over`.
    """

    plain: Head
    tail: Tail
    over: Head
    weights: tuple[float, float]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.plain.labels

    @property
    def embedder(self) -> str:
        return self.plain.embedder

    @property
    def size(self) -> int:
        """Bytes in memory beside those of the artefact, which holds layers in half precision."""
        return self.tail.size

    def predict(self, text: str, embedding: Sequence[float], states: States | None = None) -> Prediction:
        """Raises `ValueError` without states, or for an embedding or states of another length."""
        if states is None:
            raise ValueError("a tuned head needs what goes into the encoder's last layers")
        return self.of_vectors(text, embedding, self.tail.embedded([states])[0])

    def of_vectors(self, text: str, embedding: Sequence[float], tuned: Floats) -> Prediction:
        """`tuned`: what `tail` makes of the text's states."""
        scores, plain = self.plain.scores(text, embedding)
        logs = self.over.scores(text, tuned)[1] * np.float32(self.weights[1])
        if self.weights[0]:
            logs = logs + np.float32(self.weights[0]) * plain
        logs = log_softmax(logs)
        best = np.argsort(-logs, kind="stable")[:RANKED]
        ranked = tuple(Ranked(self.labels[i], float(np.exp(logs[i]))) for i in best)
        scope = self.plain.scope
        foreign = scope.score(float(log_total(scores)))
        return Prediction(ranked, foreign, foreign > scope.threshold)

    def to_bytes(self) -> bytes:
        over = self.over
        about = {
            "format": FORMAT,
            "heads": self.tail.heads,
            "kernel": asdict(over.kernel),
            "mixture": asdict(over.mixture),
            "weights": self.weights,
        }
        file = io.BytesIO()
        np.savez_compressed(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            plain=np.frombuffer(self.plain.to_bytes(), np.uint8),
            landmarks=over.landmarks.astype(np.float16),
            kernel_weights=over.weights,
            linear=over.linear.weights,
            bias=over.linear.bias,
            **{name: getattr(self.tail, name).astype(np.float16) for name in ARRAYS},
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "TunedHead":
        """Raises `ValueError` for what is broken, of another shape or format, or holds numbers that are not finite."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays["about"].tobytes())
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            floats = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"}
            plain = Head.from_bytes(arrays["plain"].tobytes())
            first, second = map(float, about["weights"])
            tail = Tail(int(about["heads"]), **{name: floats[name] for name in ARRAYS})
            over = over_of(
                plain,
                Kernel(**about["kernel"]),
                floats["landmarks"],
                floats["kernel_weights"],
                Linear(floats["linear"], floats["bias"]),
                Mixture(**about["mixture"]),
            )
            head = cls(plain, tail, over, (first, second))
            _check(head, floats)
        except Exception as error:  # zipfile, zlib, json and numpy each have errors of their own for broken bytes
            raise ValueError(f"these bytes hold no tuned head: {error}") from error
        return head


def read_head(data: bytes) -> Head | TunedHead:
    """Raises `ValueError` for bytes that hold neither."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            tuned = "plain" in file.files
    except Exception as error:
        raise ValueError(f"these bytes hold no intent head: {error}") from error
    return TunedHead.from_bytes(data) if tuned else Head.from_bytes(data)


def over_of(plain: Head, kernel: Kernel, landmarks: Floats, weights: Floats, linear: Linear, mixture: Mixture) -> Head:
    """A head over tuned vectors that has the words of `plain`."""
    return replace(plain, kernel=kernel, landmarks=landmarks, weights=weights, linear=linear, mixture=mixture)


def _check(head: TunedHead, floats: dict[str, NDArray[Any]]) -> None:
    over, tail, intents = head.over, head.tail, len(head.labels)
    if tail.mixed.ndim != 3 or tail.up.ndim != 3 or tail.heads < 1 or tail.width % tail.heads:
        raise ValueError("another shape")
    expected = {
        "landmarks": (len(head.plain.landmarks), tail.width),
        "kernel_weights": (len(over.landmarks), intents),
        "linear": (intents, tail.width),
        "bias": (intents,),
        **shapes(len(tail.mixed), tail.width, tail.up.shape[2]),
    }
    if any(floats[name].shape != shape for name, shape in expected.items()):
        raise ValueError("another shape")
    numbers = (*asdict(over.kernel).values(), *asdict(over.mixture).values(), *head.weights)
    if not (
        np.isfinite(np.array(numbers, np.float64)).all() and all(np.isfinite(floats[name]).all() for name in floats)
    ):
        raise ValueError("numbers that are not finite")
