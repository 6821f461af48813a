"""An encoder's last layers by themselves, as arrays: `tuning` makes them, `tail_session` runs them.

BERT (arXiv:1810.04805), post-norm, mean pooling over the tokens; GELU by its tanh form (arXiv:1606.08415).
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Half = NDArray[np.float16]

EPSILON = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Weights as (layers, in, out), float32, or in half precision as an artefact holds them: `attention` (…, width, 3
    width) for query, key and value, `mixed` (…, width, width), `up` (…, width, inner), `down` (…, inner, width), each
    with its bias (layers, out); `norms` (layers, 4, width): scale and shift, after the attention and at the end.
    """

    heads: int
    attention: Floats | Half
    attention_bias: Floats | Half
    mixed: Floats | Half
    mixed_bias: Floats | Half
    up: Floats | Half
    up_bias: Floats | Half
    down: Floats | Half
    down_bias: Floats | Half
    norms: Floats | Half

    @property
    def width(self) -> int:
        return int(self.mixed.shape[-1])

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)


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
