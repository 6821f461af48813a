"""A small world of intents, and an encoder that needs no model: words have random directions, texts their mean."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.states import States
from deployments.understanding.tail import Tail, shapes
from domain.understanding import Example

DIMENSIONS = 48
TEXTS = {
    "order_status": "where is my order|has my order shipped|track my parcel|when does my parcel come|"
    "order tracking please|is my parcel on its way",
    "refund": "give me my money back|refund my purchase|i want a refund|when do i get my money|money back please|"
    "refund the payment",
    "greeting": "hello there|good morning|hi|hello good day|good evening to you|hey hello",
    "opening_hours": "when do you open|opening hours please|are you open on sunday|when do you close|hours of the shop|"
    "is the shop open today",
}


def examples() -> list[Example]:
    return [Example(text, intent) for intent, texts in TEXTS.items() for text in texts.split("|")]


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    found = np.stack([sum((_direction(word) for word in text.lower().split()), 0.3 * _direction("")) for text in texts])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def _direction(word: str) -> NDArray[np.float64]:
    return np.random.default_rng(zlib.crc32(word.encode("utf-8", "replace"))).normal(size=DIMENSIONS)


def states_of(texts: Sequence[str]) -> list[States]:
    """A word is a token."""
    return [np.stack([_direction(word) for word in ["", *text.lower().split()]]).astype(np.float16) for text in texts]


def tail() -> Tail:
    """Two layers that leave most of what goes through them as it was."""
    generator = np.random.default_rng(5)
    found = {
        name: generator.normal(scale=0.05, size=shape).astype(np.float32)
        for name, shape in shapes(2, DIMENSIONS, 2 * DIMENSIONS).items()
    }
    found["norms"] = np.tile(np.repeat([1.0, 0.0], DIMENSIONS).reshape(2, DIMENSIONS), (2, 2, 1)).astype(np.float32)
    return Tail(4, **found)
