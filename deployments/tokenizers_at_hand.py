"""Models' own tokenizers, as far as they lie on this machine's disk: they count the tokens of prompts.

A model has one where its `tokenizer` names a folder or a file, and where vLLM runs it from a folder, or from a name
that Hugging Face's cache holds. Nothing is downloaded. OpenAI's tokenizers would be: their models are estimated.
"""

import hashlib
import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from domain.context import ESTIMATE, TokenCounter
from domain.model import Catalog, Model

log = logging.getLogger(__name__)
FILE = "tokenizer.json"
CACHED = 256  # texts whose count is remembered: system prompts and summaries come again each turn


class Tokenized:
    """Counts by one tokenizer. `name`: its folder's, with a digest of the file."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self.count = lru_cache(CACHED)(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))


class ModelTokenizers:
    """`domain.ports.TokenCounters`. A tokenizer is read in a thread of its own; until then its model is estimated."""

    def __init__(self) -> None:
        self._counters: dict[str, TokenCounter | None] = {}  # by place; None while it is read, and where it cannot be

    def load(self, catalog: Catalog) -> None:
        """Begin to read the tokenizers of all its models."""
        for provider in catalog.providers:
            for model in provider.models:
                self.counter(model)

    def counter(self, model: Model) -> TokenCounter:
        place = model.tokenizer or (model.vllm.source if model.vllm is not None else None)
        if place is None:
            return ESTIMATE
        if place not in self._counters:
            self._counters[place] = None
            threading.Thread(target=self._read, args=(place,), name="tokenizer", daemon=True).start()
        return self._counters[place] or ESTIMATE

    def _read(self, place: str) -> None:
        try:
            self._counters[place] = _tokenized(place)
        except Exception as error:  # the tokenizers library raises a bare Exception
            log.warning("the tokenizer of %s cannot be read, its prompts are estimated: %s", place, error)


def _tokenized(place: str) -> Tokenized:
    from tokenizers import Tokenizer  # not in hosts that need none

    path = Path(place)
    if path.is_dir():
        path = path / FILE
    elif not path.is_absolute():
        path = _cached(place)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name = path.parent.name if path.name == FILE else path.stem
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Tokenized(f"{name}@{digest}", tokenizer)


def _cached(name: str) -> Path:
    """The file of a model in Hugging Face's cache. Raises `FileNotFoundError`."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, FILE)
    if not isinstance(found, str):
        raise FileNotFoundError(f"{name} is neither a folder nor in the cache of this machine")
    return Path(found)
