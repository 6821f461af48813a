"""The packaged MiniLM in plain torch: sentence-transformers' vectors within 1e-6, ready in 2 s where that takes 8.

Those 8 seconds are imports (transformers, scikit-learn, scipy). Architecture: BERT (arXiv:1810.04805), post-norm, mean
pooling over the tokens (Sentence-BERT, arXiv:1908.10084). Importing this module imports torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from deployments.states import DEPTH, MOST_TOKENS, States
from deployments.token_batches import by_length

PADDED_TOKENS = 1024  # of one forward pass on a CPU: larger ones gain nothing there
LAYER_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}


class Encoder(nn.Module):
    """Token ids (texts, tokens) and their mask (True: a token) → float32 (texts, dimensions), unit length."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        dimensions, layers, epsilon = config["hidden_size"], config["num_hidden_layers"], config["layer_norm_eps"]
        one_segment = weights["embeddings.token_type_embeddings.weight"][0]
        self.words = nn.Parameter(weights["embeddings.word_embeddings.weight"])
        self.positions = nn.Parameter(weights["embeddings.position_embeddings.weight"] + one_segment)
        self.norm = nn.LayerNorm(dimensions, epsilon)
        self.norm.load_state_dict({k: weights[f"embeddings.LayerNorm.{k}"] for k in ("weight", "bias")})
        layer = nn.TransformerEncoderLayer(
            dimensions,
            config["num_attention_heads"],
            config["intermediate_size"],
            activation=nn.functional.gelu,
            layer_norm_eps=epsilon,
            batch_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.layers.load_state_dict(_renamed(weights, layers))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """And what goes into the last DEPTH layers."""
        hidden = states = self.norm(nn.functional.embedding(ids, self.words) + self.positions[: ids.shape[1]])
        padding = None if bool(mask.all()) else ~mask
        for i, layer in enumerate(self.layers.layers):
            if i == len(self.layers.layers) - DEPTH:
                states = hidden
            hidden = layer(hidden, src_key_padding_mask=padding)
        mean = hidden.masked_fill(~mask.unsqueeze(-1), 0).sum(1) / mask.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1), states


def _renamed(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """BERT's weights under the names of `nn.TransformerEncoder`, whose attention takes query, key and value as one."""
    state = {}
    for i in range(layers):
        source = f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            qkv = [weights[f"{source}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(qkv)
            for ours, theirs in LAYER_PARTS.items():
                state[f"layers.{i}.{ours}.{kind}"] = weights[f"{source}{theirs}.{kind}"]
    return state


class MiniLM:
    """Texts → vectors. For one thread at a time: the tokenizer is not made for more."""

    revision: str | None = None

    def __init__(self, folder: Path, device: str) -> None:
        self.max_tokens: int = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.encoder = Encoder(folder).eval().to(device)
        self.dimensions = self.encoder.words.shape[1]
        self._device = device
        self._padded_tokens = PADDED_TOKENS if device == "cpu" else 64 * self.max_tokens
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.max_tokens)
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> int:
        """Tokens that the encoder reads of `texts`, its two marks a text included."""
        return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, dimensions), unit length. Texts of like length share a forward pass: little padding."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(ids), self.dimensions), np.float32)
        for together in by_length(ids, self._padded_tokens):
            vectors[together], _ = self._forward([ids[i] for i in together])
        return vectors

    def encode_with_states(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[States]]:
        """As `encode`, and of each text its states."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors, states = np.empty((len(ids), self.dimensions), np.float32), dict[int, States]()
        for together in by_length(ids, self._padded_tokens):
            vectors[together], hidden = self._forward([ids[i] for i in together])
            kept = hidden[:, :MOST_TOKENS].half().cpu().numpy()
            states.update((i, row[: len(ids[i])].copy()) for i, row in zip(together, kept, strict=True))
        return vectors, [states[i] for i in range(len(ids))]

    def _forward(self, ids: list[list[int]]) -> tuple[NDArray[np.float32], Tensor]:
        longest = max(map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self._device)
        lengths = torch.tensor([len(row) for row in ids], device=self._device)
        with torch.inference_mode():
            mask = torch.arange(longest, device=self._device) < lengths.unsqueeze(1)
            vectors, states = self.encoder(padded, mask)
            return vectors.cpu().numpy(), states
