"""A tail ready to run, by ONNX Runtime: a text passes it from what the layers below made of it."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.states import MOST_TOKENS, States
from deployments.understanding.tail import ARRAYS, EPSILON, Floats, Tail


class TailSession:
    """For any number of threads, each of which works alone: other calls want the other cores.

    `size`: bytes in memory, of the weights as the operators want them. Making one takes some 50 ms, the first one of a
    process longer.
    """

    def __init__(self, tail: Tail) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # releases from 1.29 on report to Microsoft unless told before
        import onnxruntime

        model, weights = _graph(tail)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._width = tail.width
        self.size: int = sum(getattr(tail, name).size for name in ARRAYS) * np.dtype(np.float32).itemsize

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


def _graph(tail: Tail) -> tuple[bytes, dict[str, Any]]:
    """`states`, float32 (1, tokens, width) → `vectors`, float32 (1, width), unit length; and its matrices by name."""
    from onnx import TensorProto, helper

    from deployments.onnx_graph import Parts

    parts = Parts()
    hidden = "states"
    for layer in range(len(tail.mixed)):
        hidden = _layer(parts, {name: getattr(tail, name)[layer] for name in ARRAYS}, tail.heads, hidden)
    pooled = parts.add("ReduceMean", hidden, parts.constant([1], np.int64), keepdims=0)
    parts.add("LpNormalization", pooled, axis=1, p=2, to_output="vectors")
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, [1, "tokens", tail.width])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, tail.width])
    return parts.model([states], [vectors]), parts.outside


def _layer(parts: Any, arrays: dict[str, Any], heads: int, hidden: str) -> str:
    held = {
        name: parts.named(array) if array.ndim == 2 else parts.constant(array)
        for name, array in arrays.items()
        if name != "norms"
    }
    gain, shift, last_gain, last_shift = map(parts.constant, arrays["norms"])
    width = arrays["norms"].shape[-1]
    joined = parts.add("MatMul", hidden, held["attention"])
    three = parts.add("Split", joined, parts.constant([width] * 3, np.int64), outputs=3, axis=2)
    seen = parts.add("MultiHeadAttention", *three, held["attention_bias"], num_heads=heads)
    mixed = parts.add("MatMul", seen, held["mixed"])
    middle = parts.add("SkipLayerNormalization", mixed, hidden, gain, shift, held["mixed_bias"], epsilon=EPSILON)
    inner = parts.add("FastGelu", parts.add("MatMul", middle, held["up"]), held["up_bias"])
    down = parts.add("MatMul", inner, held["down"])
    found: str = parts.add(
        "SkipLayerNormalization", down, middle, last_gain, last_shift, held["down_bias"], epsilon=EPSILON
    )
    return found
