"""The product's tuned head, asked as the service asks it: with what the embedder hands on."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.understanding.data import Vectors
from deployments.packaged_tail import packaged_tail
from deployments.understanding import TunedHead, Tuning, train_tuned
from domain.understanding import Example, Prediction


@dataclass(frozen=True, slots=True)
class Tuned:
    """`head`, for whoever has no states at hand."""

    head: TunedHead
    vectors: Vectors

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        """The ranked intents."""
        return self.head.predict(text, embedding, self.vectors.states([text])[0])


def tuned_head(examples: Sequence[Example], vectors: Vectors, seed: int) -> Tuned:
    """The product's, in minutes."""
    tuning = Tuning(vectors.states, packaged_tail())
    return Tuned(train_tuned(examples, vectors, tuning, embedder="study", seed=seed), vectors)
