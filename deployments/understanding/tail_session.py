"""A tail ready to run, by ONNX Runtime in int8: a text passes it from what the layers below made of it.

A third of float32's time. Its vectors have a cosine of 0.998 with float32's (0.98 for a word or two), and what is
answered by them is as often right (docs/understanding.md).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.onnx_session import session
from deployments.states import MOST_TOKENS, States
from deployments.understanding.tail import ARRAYS, EPSILON, Floats, Tail

COPIES = 3  # in memory of a weight in one byte: as it came, and as its operator wants it


class TailSession:
    """For any number of threads, each of which works alone: other calls want the other cores.

    `size`: bytes in memory, an estimate. Making one takes some 50 ms, the first one of a process longer.
    """

    def __init__(self, tail: Tail) -> None:
        self._session = session(_graph(tail), threads=1)
        self._width = tail.width
        self.size: int = COPIES * sum(getattr(tail, name).size for name in ARRAYS)

    def embedded(self, states: Sequence[States]) -> Floats:
        """(texts, width), unit length, of `states`: of each text (tokens, width), in half precision.

        Raises `ValueError` for states of another width, or of no token.
        """
        return np.stack([self._embedded(one) for one in states])

    def _embedded(self, states: States) -> Floats:
        if states.ndim != 2 or states.shape[1] != self._width or not len(states):
            raise ValueError(f"states are (tokens, {self._width}) here, and these {states.shape}")
        given = states[None, :MOST_TOKENS].astype(np.float32)
        [[vector]] = self._session.run(["vectors"], {"states": given})
        return np.asarray(vector, np.float32)


def _graph(tail: Tail) -> bytes:
    """`states`, float32 (1, tokens, width) → `vectors`, float32 (1, width), unit length."""
    from onnx import TensorProto, helper

    from deployments.onnx_graph import Parts

    parts = Parts(int8=True)
    hidden = "states"
    for layer in range(len(tail.mixed)):
        hidden = _layer(parts, {name: getattr(tail, name)[layer] for name in ARRAYS}, tail.heads, hidden)
    pooled = parts.add("ReduceMean", hidden, parts.constant([1], np.int64), keepdims=0)
    parts.add("LpNormalization", pooled, axis=1, p=2, to_output="vectors")
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, [1, "tokens", tail.width])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, tail.width])
    return parts.model([states], [vectors])


def _layer(parts: Any, arrays: dict[str, Any], heads: int, hidden: str) -> str:
    from deployments.onnx_graph import product

    def times(given: str, name: str, **options: Any) -> str:
        return product(parts, given, arrays[name].T.astype(np.float32), **options)

    def normed(given: str, residual: str, gain: Any, shift: Any, bias: str) -> str:
        constants = map(parts.constant, (gain, shift, arrays[bias]))
        found: str = parts.add("SkipLayerNormalization", given, residual, *constants, epsilon=EPSILON)
        return found

    width, norms = arrays["norms"].shape[-1], arrays["norms"]
    joined = times(hidden, "attention")
    three = parts.add("Split", joined, parts.constant([width] * 3, np.int64), outputs=3, axis=2)
    seen = parts.add("MultiHeadAttention", *three, parts.constant(arrays["attention_bias"]), num_heads=heads)
    middle = normed(times(seen, "mixed"), hidden, norms[0], norms[1], "mixed_bias")
    inner = parts.add("FastGelu", times(middle, "up"), parts.constant(arrays["up_bias"]))
    return normed(times(inner, "down", after_gelu=True), middle, norms[2], norms[3], "down_bias")
