"""A head over vectors of its own: the encoder's last layers, tuned to its intents, and a kernel over what they make."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.states import States
from deployments.understanding.calibration import floored_log, log_softmax, log_total
from deployments.understanding.grams import Floats
from deployments.understanding.head import RANKED, Head, Mixture
from deployments.understanding.kernel_ridge import Kernel
from deployments.understanding.tail import ARRAYS, Tail, shapes
from deployments.understanding.tail_session import TailSession
from domain.understanding import Prediction, Ranked

FORMAT = 2


@dataclass(frozen=True, slots=True, eq=False)
class TunedHead:
    """An `IntentModel` that needs an embedder's states beside the embedding.

    Kernel ridge regression over the mean of two kernels names the intent: `plain`'s between embeddings, and `kernel`
    between what `tail` makes of a text's states and of the examples' (`landmarks`, as many as `plain` has); `weights`
    (landmarks, intents). `plain` says how far a text is out of scope. Never changed.
    """

    plain: Head
    tail: Tail
    kernel: Kernel
    landmarks: Floats
    weights: Floats
    mixture: Mixture
    _session: TailSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_session", TailSession(self.tail))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.plain.labels

    @property
    def embedder(self) -> str:
        return self.plain.embedder

    @property
    def size(self) -> int:
        """Bytes in memory beside those of the artefact, which holds layers in half precision."""
        return self._session.size

    def predict(self, text: str, embedding: Sequence[float], states: States | None = None) -> Prediction:
        """Raises `ValueError` without states, or for an embedding or states of another length."""
        if states is None:
            raise ValueError("a tuned head needs what goes into the encoder's last layers")
        return self.of_vectors(text, embedding, self._session.embedded([states])[0])

    def of_vectors(self, text: str, embedding: Sequence[float], tuned: Floats) -> Prediction:
        """`tuned`: what `tail` makes of the text's states."""
        plain, given = self.plain, np.asarray(embedding, np.float32)
        inside = plain.scores(text, embedding)[0]
        words = plain.shared_words(text)
        near = self.kernel.of(self.landmarks @ tuned, words) + plain.kernel.of(plain.landmarks @ given, words)
        scores = np.asarray(near @ self.weights / 2, np.float32)
        logs = log_softmax(self.mixture.scores * scores + self.mixture.logs * floored_log(scores))
        best = np.argsort(-logs, kind="stable")[:RANKED]
        ranked = tuple(Ranked(self.labels[i], float(np.exp(logs[i]))) for i in best)
        foreign = plain.scope.score(float(log_total(inside)))
        return Prediction(ranked, foreign, foreign > plain.scope.threshold)

    def to_bytes(self) -> bytes:
        about = {
            "format": FORMAT,
            "heads": self.tail.heads,
            "kernel": asdict(self.kernel),
            "mixture": asdict(self.mixture),
        }
        file = io.BytesIO()
        np.savez_compressed(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            plain=np.frombuffer(self.plain.to_bytes(), np.uint8),
            landmarks=self.landmarks.astype(np.float16),
            weights=self.weights,
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
            tail = Tail(int(about["heads"]), **{name: arrays[name] for name in ARRAYS})
            kernel, mixture = Kernel(**about["kernel"]), Mixture(**about["mixture"])
            _check(plain, tail, (*asdict(kernel).values(), *asdict(mixture).values()), floats)
            return cls(plain, tail, kernel, floats["landmarks"], floats["weights"], mixture)
        except Exception as error:  # zipfile, zlib, json and numpy each have errors of their own for broken bytes
            raise ValueError(f"these bytes hold no tuned head: {error}") from error


def read_head(data: bytes) -> Head | TunedHead:
    """Raises `ValueError` for bytes that hold neither."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            tuned = "plain" in file.files
    except Exception as error:
        raise ValueError(f"these bytes hold no intent head: {error}") from error
    return TunedHead.from_bytes(data) if tuned else Head.from_bytes(data)


def _check(plain: Head, tail: Tail, numbers: Sequence[float], floats: dict[str, NDArray[Any]]) -> None:
    examples = len(plain.landmarks)
    if tail.mixed.ndim != 3 or tail.up.ndim != 3 or tail.heads < 1 or tail.width % tail.heads:
        raise ValueError("another shape")
    expected = {
        "landmarks": (examples, tail.width),
        "weights": (examples, len(plain.labels)),
        **shapes(len(tail.mixed), tail.width, tail.up.shape[2]),
    }
    if any(floats[name].shape != shape for name, shape in expected.items()):
        raise ValueError("another shape")
    finite = np.isfinite(np.array(numbers, np.float64)).all()
    if not (finite and all(np.isfinite(array).all() for array in floats.values())):
        raise ValueError("numbers that are not finite")
