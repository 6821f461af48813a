"""Sentence encoders on a CPU by ONNX Runtime: half of torch's time for one text, in int8 a quarter, and no torch in the
process. In float32 the vectors are torch's within 1e-6."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from deployments.onnx_session import session
from deployments.states import MOST_TOKENS, States
from deployments.token_batches import by_length

PADDED_TOKENS = 1024  # of one forward pass: larger ones gain nothing
SCHEME = "int8 by token, weights of 7 bits"  # what vectors in int8 depend on besides the weights
FILES = ["*.json", "*/config.json", "model.safetensors"]


class OnnxEncoder:
    """Texts → vectors, of a BERT in sentence-transformers' layout. For one thread at a time.

    `model`: a folder, or a name that is downloaded once. Raises ValueError where it cannot run so, and OSError where
    there is no such model.
    """

    def __init__(self, model: Path | str, threads: int, *, int8: bool = False) -> None:
        check_model(model)
        folder = Path(model) if Path(model).is_dir() else _downloaded(str(model))
        config, pooling, self.max_tokens = _layout(folder, str(model))
        self.dimensions: int = config["hidden_size"]
        self.revision: str | None = _revision(folder) if int8 else None
        self._session = session(_model(folder, config, pooling, int8), threads)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.max_tokens)
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> int:
        """Tokens that the encoder reads of `texts`, its marks included."""
        return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, dimensions), unit length. A text's vector is the same whatever stands beside it."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(ids), self.dimensions), np.float32)
        for together in by_length(ids, PADDED_TOKENS):
            [vectors[together]] = self._forward(["vectors"], [ids[i] for i in together])
        return vectors

    def encode_with_states(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[States]]:
        """As `encode`, and of each text its states."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors, states = np.empty((len(ids), self.dimensions), np.float32), dict[int, States]()
        for together in by_length(ids, PADDED_TOKENS):
            vectors[together], hidden = self._forward(["vectors", "states"], [ids[i] for i in together])
            kept = hidden[:, :MOST_TOKENS].astype(np.float16)
            states.update((i, row[: len(ids[i])].copy()) for i, row in zip(together, kept, strict=True))
        return vectors, [states[i] for i in range(len(ids))]

    def _forward(self, outputs: list[str], ids: list[list[int]]) -> list[NDArray[np.float32]]:
        shape = len(ids), max(map(len, ids))
        padded, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for i, row in enumerate(ids):
            padded[i, : len(row)], mask[i, : len(row)] = row, 1
        found: list[NDArray[np.float32]] = self._session.run(outputs, {"ids": padded, "mask": mask})
        return found


def check_model(model: Path | str) -> None:
    """Raises ValueError where `model` cannot run so as far as can be told without loading it."""
    if Path(model).is_dir():
        _layout(Path(model), str(model))


def _model(folder: Path, config: dict[str, Any], pooling: str, int8: bool) -> bytes:
    """The graph. What it was made from is gone when it is loaded: each copy is 90 MB."""
    from safetensors.numpy import load_file

    from deployments.onnx_graph import graph

    found = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("bert."): array.astype(np.float32, copy=False) for name, array in found.items()}
    return graph(weights, config, pooling, int8=int8)


def _revision(folder: Path) -> str:
    """Of the weights, not of a vector: processors differ in the last bits, which rounding to int8 makes larger."""
    with (folder / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").digest()
    return f"int8-{hashlib.sha256(SCHEME.encode() + weights).hexdigest()[:12]}"


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=FILES))


def _layout(folder: Path, model: str) -> tuple[dict[str, Any], str, int]:
    """The encoder's configuration, `mean` or `cls`, and the tokens that it reads. Raises ValueError."""
    config = _read(folder / "config.json")
    modules = [module["type"].rpartition(".")[2] for module in _read(folder / "modules.json") or ()]
    pooling = _read(folder / "1_Pooling" / "config.json") or {}
    modes = [name for name, chosen in pooling.items() if name.startswith("pooling_mode") and chosen]
    wanted = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    known = (
        config is not None
        and (config["model_type"], config["hidden_act"]) == ("bert", "gelu")
        and config.get("position_embedding_type", "absolute") == "absolute"
        and modules[:2] == ["Transformer", "Pooling"]
        and modules[2:] in ([], ["Normalize"])
        and len(modes) == 1
        and modes[0] in wanted
        and not (_read(folder / "config_sentence_transformers.json") or {}).get("default_prompt_name")
        and all((folder / name).exists() for name in ("model.safetensors", "tokenizer.json"))
    )
    if not known:
        raise ValueError(
            f"{model} cannot run in int8: only BERT models of sentence-transformers can, with mean or first-token "
            "pooling and nothing behind it"
        )
    most = (_read(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    return config, wanted[modes[0]], min(most or 512, config["max_position_embeddings"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
