"""The packaged encoder's last layer by itself, and what goes into it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.minilm import MiniLM

Floats = NDArray[np.float32]
States = NDArray[np.float16]

MOST_TOKENS = 64  # of a text; what stands further back the layers below have told them
EPSILON = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Weights as (in, out), float32: `attention` (width, 3 width) for query, key and value, `mixed` (width, width),
    `up` (width, inner), `down` (inner, width), each with its bias; `norms` (4, width): scale and shift, twice.
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
        return len(self.mixed)


ARRAYS = tuple(one.name for one in fields(Tail) if one.name != "heads")


def last_layer(model: MiniLM) -> Tail:
    """A copy."""
    layer: Any = model.encoder.layers.layers[-1]
    attention = layer.self_attn
    weights = (attention.in_proj_weight, attention.out_proj.weight, layer.linear1.weight, layer.linear2.weight)
    biases = (attention.in_proj_bias, attention.out_proj.bias, layer.linear1.bias, layer.linear2.bias)
    norms = (layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias)
    pairs = [
        (weight.detach().numpy().T.copy(), bias.detach().numpy().copy())
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return Tail(
        attention.num_heads,
        *(array for pair in pairs for array in pair),
        np.stack([norm.detach().numpy() for norm in norms]),
    )


def states(model: MiniLM, texts: Sequence[str]) -> list[tuple[States, Floats]]:
    """Of each text what goes into the last layer, (tokens, width), and its vector; a forward pass each."""
    found: list[States] = []
    hook = model.encoder.layers.layers[-1].register_forward_pre_hook(
        lambda module, given: found.append(given[0][0, :MOST_TOKENS].half().numpy())
    )
    try:
        vectors = [model.encode([text])[0] for text in texts]
    finally:
        hook.remove()
    return list(zip(found, vectors, strict=True))
