"""BERT with mean or first-token pooling as an ONNX graph of fused operators, in float32 or with matrices in int8, made
from float32 weights.

In int8, each column of a matrix has a scale, and each token's activations have one, found when it passes (dynamic
quantisation, as in ZeroQuant, arXiv:2206.01861). One scale for a whole batch, which ONNX Runtime's own quantiser makes,
is a fifth quicker, but a text's vector would depend on the texts beside it, and lies further off (cosine 0.994 with
float32's; by token 0.998). Operators: ONNX opset 18, and com.microsoft's of
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deployments.states import DEPTH

Array = NDArray[Any]
MICROSOFT = frozenset(
    (
        "EmbedLayerNormalization",
        "MultiHeadAttention",
        "SkipLayerNormalization",
        "BiasGelu",
        "FastGelu",
        "MatMulIntegerToFloat",
    )
)
LARGEST = 127
LARGEST_WEIGHT = 64  # x86 without VNNI adds two products in 16 bits, which 2 · 255 · 64 just fits
GELU_MINIMUM = 0.17  # no value of the function lies below its negative


def graph(weights: Mapping[str, Array], config: Mapping[str, Any], pooling: str, *, int8: bool) -> bytes:
    """An ONNX model: `ids` and `mask` (1: a token), int32 (texts, tokens), padded at the end → `vectors`, float32
    (texts, dimensions), unit length, and `states`, what goes into the last DEPTH layers: float32 (texts, tokens,
    dimensions).
    `weights`: of `transformers.BertModel`, by name; `pooling`: `mean` or `cls`.
    """
    parts = Parts(int8)
    hidden, lengths = _embedded(parts, weights, config["layer_norm_eps"])
    for i in range(config["num_hidden_layers"]):
        if i == max(0, config["num_hidden_layers"] - DEPTH):
            parts.add("Identity", hidden, to_output="states")
        hidden = _layer(parts, weights, f"encoder.layer.{i}.", hidden, lengths, config)
    if pooling == "mean":
        kept = parts.add("Unsqueeze", parts.add("Cast", "mask", to=TensorProto.FLOAT), parts.constant([1], np.int64))
        pooled = parts.add("Squeeze", parts.add("MatMul", kept, hidden), parts.constant([1], np.int64))
    else:
        pooled = parts.add("Gather", hidden, parts.constant(0, np.int64), axis=1)
    parts.add("LpNormalization", pooled, axis=1, p=2, to_output="vectors")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["texts", "tokens"]) for name in ("ids", "mask")]
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", config["hidden_size"]])
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, ["texts", "tokens", config["hidden_size"]])
    return parts.model(inputs, [vectors, states])


class Parts:
    """Nodes and constants of a graph."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, kind, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, to_output: str = "", **attributes: Any) -> Any:
        """A node; its output's name, or their names where there are more."""
        names = [to_output or f"n{len(self._nodes)}_{i}" for i in range(outputs)]
        domain = "com.microsoft" if operator in MICROSOFT else ""
        self._nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        made = helper.make_graph(self._nodes, "encoder", inputs, outputs, self._constants)
        versions = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        serialized: bytes = helper.make_model(made, opset_imports=versions, ir_version=9).SerializeToString()
        return serialized


def _embedded(parts: Parts, weights: Mapping[str, Array], epsilon: float) -> Sequence[str]:
    """Words and their places, and the number of tokens of each text."""
    words = parts.constant(weights["embeddings.word_embeddings.weight"])
    one_segment = weights["embeddings.token_type_embeddings.weight"][0]
    positions = parts.constant(weights["embeddings.position_embeddings.weight"] + one_segment)
    gain, bias = (parts.constant(weights[f"embeddings.LayerNorm.{name}"]) for name in ("weight", "bias"))
    inputs = ("ids", "", words, positions, "", gain, bias, "mask")
    found: Sequence[str] = parts.add("EmbedLayerNormalization", *inputs, outputs=2, epsilon=epsilon)
    return found


def _layer(
    parts: Parts, weights: Mapping[str, Array], name: str, hidden: str, lengths: str, config: Mapping[str, Any]
) -> str:
    three = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
    width = config["hidden_size"]
    joined = product(parts, hidden, np.concatenate([weights[f"{part}.weight"] for part in three]))
    separate = parts.add("Split", joined, parts.constant([width] * 3, np.int64), outputs=3, axis=2)
    bias = parts.constant(np.concatenate([weights[f"{part}.bias"] for part in three]))
    attended = parts.add("MultiHeadAttention", *separate, bias, lengths, num_heads=config["num_attention_heads"])
    hidden = _normed(parts, weights, f"{name}attention.output", attended, hidden, config)
    wide = product(parts, hidden, weights[f"{name}intermediate.dense.weight"])
    wide = parts.add("BiasGelu", wide, parts.constant(weights[f"{name}intermediate.dense.bias"]))
    return _normed(parts, weights, f"{name}output", wide, hidden, config, after_gelu=True)


def _normed(
    parts: Parts,
    weights: Mapping[str, Array],
    name: str,
    hidden: str,
    residual: str,
    config: Mapping[str, Any],
    *,
    after_gelu: bool = False,
) -> str:
    dense = product(parts, hidden, weights[f"{name}.dense.weight"], after_gelu=after_gelu)
    gain, bias, of_product = (
        parts.constant(weights[f"{name}.{part}"]) for part in ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
    )
    epsilon = config["layer_norm_eps"]
    found: str = parts.add("SkipLayerNormalization", dense, residual, gain, bias, of_product, epsilon=epsilon)
    return found


def product(parts: Parts, hidden: str, matrix: Array, *, after_gelu: bool = False) -> str:
    """`hidden @ matrix.T`. In int8, activations are shifted to uint8, the only kind that x86 multiplies with int8."""
    if not parts.int8:
        exact: str = parts.add("MatMul", hidden, parts.constant(matrix.T))
        return exact
    columns = np.maximum(np.abs(matrix).max(1) / LARGEST_WEIGHT, 1e-12)
    quantised = parts.constant(np.round(matrix / columns[:, None]).T, np.int8)
    last = parts.constant([-1], np.int64)
    if after_gelu:
        sizes, least = hidden, GELU_MINIMUM
    else:
        sizes, least = parts.add("Abs", hidden), 1e-9
    largest = parts.add("Max", parts.add("ReduceMax", sizes, last, keepdims=1), parts.constant(least))
    scaled = parts.add("Mul", hidden, parts.add("Div", parts.constant(float(LARGEST)), largest))
    one, middle = parts.constant(1.0), parts.constant(128, np.uint8)
    rounded = parts.add("QuantizeLinear", scaled, one, middle)
    scales = parts.constant(columns / LARGEST)
    product = parts.add("MatMulIntegerToFloat", rounded, quantised, one, scales, middle, "")
    found: str = parts.add("Mul", product, largest)
    return found
