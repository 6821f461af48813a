"""An encoder's last layers by themselves, with numpy alone: a text passes them from what the layers below made of it.

BERT (arXiv:1810.04805), post-norm, mean pooling over the tokens; GELU by its tanh form (arXiv:1606.08415).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deployments.states import MOST_TOKENS, States

Floats = NDArray[np.float32]

EPSILON = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Weights as (layers, in, out), float32: `attention` (…, width, 3 width) for query, key and value, `mixed` (…,
    width, width), `up` (…, width, inner), `down` (…, inner, width), each with its bias (layers, out); `norms` (layers,
    4, width): scale and shift, after the attention and at the end.
    """

    heads: int
    attention: Floats
    attention_bias: Floats
    mixed: Floats
    mixed_bias: Floats
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    norms: Floats

    @property
    def width(self) -> int:
        return int(self.mixed.shape[-1])

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)

    def embedded(self, states: Sequence[States]) -> Floats:
        """(texts, width), unit length, of `states`: of each text (tokens, width), in half precision."""
        return np.stack([self._embedded(one) for one in states])

    def _embedded(self, states: States) -> Floats:
        """Raises `ValueError` for states of another width, or of no token."""
        hidden = states[:MOST_TOKENS].astype(np.float32)
        if hidden.ndim != 2 or hidden.shape[1] != self.width or not len(hidden):
            raise ValueError(f"states are (tokens, {self.width}) here, and these {states.shape}")
        for layer in range(len(self.mixed)):
            hidden = self._passed(layer, hidden)
        mean = hidden.mean(0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def _passed(self, layer: int, hidden: Floats) -> Floats:
        tokens, width = hidden.shape
        norms = self.norms[layer]
        joined = hidden @ self.attention[layer] + self.attention_bias[layer]
        query, key, value = joined.reshape(tokens, 3, self.heads, -1).transpose(1, 2, 0, 3)
        near = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width // self.heads))
        near = np.exp(near - near.max(-1, keepdims=True))
        near /= near.sum(-1, keepdims=True)
        seen = (near @ value).transpose(1, 0, 2).reshape(tokens, width)
        middle = _normed(hidden + seen @ self.mixed[layer] + self.mixed_bias[layer], norms[0], norms[1])
        inner = _gelu(middle @ self.up[layer] + self.up_bias[layer])
        return _normed(middle + inner @ self.down[layer] + self.down_bias[layer], norms[2], norms[3])


ARRAYS = tuple(one.name for one in fields(Tail) if one.name != "heads")


def shapes(layers: int, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Of ARRAYS."""
    return {
        "attention": (layers, width, 3 * width),
        "attention_bias": (layers, 3 * width),
        "mixed": (layers, width, width),
        "mixed_bias": (layers, width),
        "up": (layers, width, inner),
        "up_bias": (layers, inner),
        "down": (layers, inner, width),
        "down_bias": (layers, width),
        "norms": (layers, 4, width),
    }


def _normed(values: Floats, scale: Floats, shift: Floats) -> Floats:
    centred = values - values.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(EPSILON)) * scale + shift, np.float32)


def _gelu(values: Floats) -> Floats:
    inner = np.float32(np.sqrt(2 / np.pi)) * (values + np.float32(0.044715) * values * values * values)
    return np.asarray(np.float32(0.5) * values * (1 + np.tanh(inner)), np.float32)
