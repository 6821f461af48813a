"""What a message asks for: one embedding, one matrix product, and `other` where neither says enough."""

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from deployments import complexity
from deployments.complexity import Scorer
from deployments.complexity_ranks import packaged_ranks
from deployments.intent_head import GENERAL, Head, fingerprint, load, read_examples, save, train
from deployments.tenant_scorers import TenantScorers
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import Overloaded
from domain.message import Intent
from domain.ports import Understanding

log = logging.getLogger(__name__)

OTHER = "other"
THRESHOLD = 0.3
RANKED = 5


class Embeds(Protocol):
    """The embedder as the classifier needs it: itself, or calls to its deployment."""

    async def embed(self, text: str) -> Embedding: ...

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding]: ...

    async def describe(self) -> EmbedderInfo: ...


class IntentClassifier:
    """Names a message's intent with a logistic regression over its embedding, which is handed on.

    The head is trained from `examples` (YAML, `intent: [text, …]`) when this is first ready, and kept under `cache` (a
    folder) for every later start with the same model, examples and scikit-learn.

    An intent less probable than `threshold` becomes `other`, whose confidence is what the best named intent leaves
    over; `ranked` stays as the head ranked them. THRESHOLD was chosen on intents/validation.yaml, which the head never
    sees: the largest that costs no accuracy there (0.89 of 140; many are hard on purpose).

    `complexity`: judges how much a message needs a strong model; by default the packaged scorer, which goes by the text
    alone where the embedder is not the one it was trained with.

    `tenants`: the scorers that tenants trained themselves.

    `max_waiting`: calls at once, beyond which one is refused.
    """

    def __init__(
        self,
        embedder: Embeds,
        threshold: float = THRESHOLD,
        *,
        cache: Path | str | None = None,
        max_waiting: int = 256,
        examples: Path | str = GENERAL,
        complexity: Scorer | None = None,
        tenants: TenantScorers | None = None,
    ) -> None:
        self._embedder, self._threshold, self._max_waiting = embedder, threshold, max_waiting
        self._cache = Path(cache) if cache is not None else None
        self._examples = read_examples(Path(examples))
        self._complexity, self._by_text_alone = complexity, False
        self._tenants, self._model = tenants, ""
        self._head: Head | None = None
        self._preparing: asyncio.Task[Head] | None = None
        self._waiting = 0

    async def classify(self, text: str, tenant: str = "") -> Understanding:
        """`tenant`: whose own complexity score counts, where it has one.

        Raises `Overloaded` if too many calls wait; what the embedder raises is passed on.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded("too many messages wait to be classified")
        self._waiting += 1
        try:
            head = self._head or await self.prepare()
            embedding = await self._embedder.embed(text)
        finally:
            self._waiting -= 1
        understood = self._understanding(head, text, embedding)
        if self._tenants is None or not tenant:
            return understood
        own = await self._tenants.score(tenant, text, embedding, self._model)
        return understood if own is None else replace(understood, complexity=own)

    async def prepare(self) -> Head:
        """Load or train the head. Callers share one attempt; after a failed one, the next call tries again."""
        if self._head is not None:
            return self._head
        if self._preparing is None or self._preparing.done():
            # in a context of its own: the end of the request that starts it must not end it
            self._preparing = asyncio.create_task(self._prepare(), context=contextvars.Context())
        return await asyncio.shield(self._preparing)

    async def check_health(self) -> None:
        """Serve asks this before a replica takes calls, so the head stands when the first message comes."""
        await self.prepare()

    async def _prepare(self) -> Head:
        info = await self._embedder.describe()
        if self._complexity is None:
            self._complexity = await asyncio.to_thread(_packaged)
            self._by_text_alone = info.name != complexity.EMBEDDER
        self._model = info.name
        version = fingerprint(f"{info.name}@{info.revision}", self._examples)
        path = self._cache / f"intents-{version}.npz" if self._cache is not None else None
        head = await asyncio.to_thread(_cached, path, info.dimensions) if path else None
        if head is None:
            texts, intents = zip(*self._examples, strict=True)
            embeddings = await self._embedder.embed_many(texts)
            head = await asyncio.to_thread(_trained, embeddings, intents, path)
        self._head = head
        return head

    def _understanding(self, head: Head, text: str, embedding: Embedding) -> Understanding:
        probabilities = head.probabilities(embedding)
        order = np.argsort(-probabilities)
        ranked = [Intent(name=head.labels[i], confidence=float(probabilities[i])) for i in order[:RANKED]]
        best = ranked[0]
        if best.name == OTHER or best.confidence < self._threshold:
            named = next(intent for intent in ranked if intent.name != OTHER)
            best = Intent(name=OTHER, confidence=1 - named.confidence)
        return Understanding(best, ranked, embedding, self._score(text, embedding))

    def _score(self, text: str, embedding: Embedding) -> float | None:
        if self._complexity is None:
            return None
        return self._complexity.score(text, None if self._by_text_alone else embedding)


def _packaged() -> Scorer | None:
    try:
        return packaged_ranks()
    except (OSError, ValueError) as error:
        log.warning("messages have no complexity, and the default model answers: %s", error)
        return None


def _cached(path: Path, dimensions: int) -> Head | None:
    try:
        return load(path, dimensions)
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("the intent classifier's cache is ignored and written again: %s", error)
        return None


def _trained(embeddings: Sequence[Embedding], intents: Sequence[str], path: Path | None) -> Head:
    head = train(embeddings, intents)
    if path is not None:
        try:
            save(head, path)
        except OSError as error:
            log.warning("the intent classifier's cache cannot be written; it will be trained at each start: %s", error)
    return head
