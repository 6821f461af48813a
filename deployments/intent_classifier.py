"""What a message asks for: one embedding, one head, and `other` where no intent says enough."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments import complexity
from deployments.complexity import Scorer
from deployments.complexity_ranks import packaged_ranks
from deployments.head_cache import trained_once
from deployments.intent_head import GENERAL, Matrix, fingerprint, read_examples
from deployments.list_places import ListPlaces
from deployments.meaning import Meaning
from deployments.shared_model import THRESHOLD, SharedModel
from deployments.states import States
from deployments.tenant_heads import Held, Store, TenantHeads
from deployments.tenant_scorers import TenantScorers
from deployments.understanding import evaluate
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import Overloaded
from domain.ports import HeadInUse, Understanding
from domain.understanding import Example

log = logging.getLogger(__name__)

PRODUCTS = frozenset(("product_search", "product_availability"))
AT_ONCE = 256  # texts in one call of the embedder
LONG = 2000  # characters, from which on looking for entities takes longer than a thread


class Embeds(Protocol):
    """The embedder as the classifier needs it: itself, or calls to its deployment."""

    async def embed(self, text: str) -> Embedding: ...

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding]: ...

    async def embed_with_states(
        self, texts: Sequence[str], *, urgent: bool = True
    ) -> Sequence[tuple[Embedding, States]]: ...

    async def describe(self) -> EmbedderInfo: ...


class IntentClassifier:
    """Names a message's intent with the tenant's head over its embedding, which is handed on.

    Tenants without a head of their own share one: trained from `examples` (YAML, `intent: [text, …]`) when this is
    first ready, and kept under `cache` (a folder) for every later start with the same model, examples and trainer.
    `heads`: where tenants' own are kept.

    An intent of the shared set less probable than `threshold` becomes `other`, whose confidence is what the best named
    intent leaves over; `ranked` stays as the head ranked them. THRESHOLD costs no accuracy on intents/validation.yaml,
    which the head never sees (0.907 of 140; many are hard on purpose), as none up to 0.4 does: what is doubtful is
    asked, not refused.

    `complexity`: judges how much a message needs a strong model; by default the packaged scorer, which goes by the text
    alone where the embedder is not the one it was trained with.

    `tenants`: the scorers that tenants trained themselves.

    `max_waiting`: calls at once, beyond which one is refused. Of lists of texts far fewer: `lists`.
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
        heads: Store | None = None,
        lists: ListPlaces | None = None,
    ) -> None:
        self._lists = lists or ListPlaces()
        self._embedder, self._threshold, self._max_waiting = embedder, threshold, max_waiting
        self._cache = Path(cache) if cache is not None else None
        self._examples = read_examples(Path(examples))
        self._complexity, self._by_text_alone = complexity, False
        self._tenants, self._model = tenants, ""
        self._store = heads
        self._heads: TenantHeads | None = None
        self._shared: Meaning | None = None
        self._preparing: asyncio.Task[Meaning] | None = None
        self._waiting = 0

    async def classify(self, text: str, tenant: str = "") -> Understanding:
        """`tenant`: whose own head and complexity score count, where it has them.

        Raises `Overloaded` if too many calls wait; what the embedder raises is passed on.
        """
        async with self._meaning(tenant) as (meaning, _):
            states: States | None = None
            if meaning.tuned:
                [(embedding, states)] = await self._embedder.embed_with_states([text])
            else:
                embedding = await self._embedder.embed(text)
        if len(text) < LONG and states is None:
            understood = meaning.of(text, embedding)
        else:
            understood = await asyncio.to_thread(meaning.of, text, embedding, states)
        own = None
        if self._tenants is not None and tenant:
            own = await self._tenants.score(tenant, text, embedding, self._model)
        return replace(understood, complexity=self._score(text, embedding) if own is None else own)

    async def classify_many(self, texts: Sequence[str], tenant: str = "") -> list[Understanding]:
        """Up to 256 texts, all by one version; without their vectors and complexity. Raises as `classify`."""
        with self._lists.of(tenant):
            async with self._meaning(tenant) as (meaning, _):
                found = await self._passed(meaning, texts)
            return await asyncio.to_thread(_understood, meaning, texts, found)

    async def evaluate(self, examples: Sequence[Example], tenant: str = "") -> dict[str, Any]:
        """How well the tenant's head knows `examples`, as `understanding.evaluate` says it, and its `version`.

        Raises as `classify`.
        """
        with self._lists.of(tenant):
            async with self._meaning(tenant) as (meaning, _):
                texts = list(dict.fromkeys(one.text for one in examples))
                passed = dict(zip(texts, await self._passed(meaning, texts), strict=True))

            def known(texts: Sequence[str]) -> Matrix:
                return np.asarray([passed[text][0] for text in texts], np.float32)

            def states_of(texts: Sequence[str]) -> list[States]:
                return [states for text in texts if (states := passed[text][1]) is not None]

            found = await asyncio.to_thread(evaluate, meaning.model, examples, known, states_of)
        return {**asdict(found), "examples": len(examples), "version": meaning.version}

    async def _passed(self, meaning: Meaning, texts: Sequence[str]) -> list[tuple[Embedding, States | None]]:
        found: list[tuple[Embedding, States | None]] = []
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            if meaning.tuned:
                found += await self._embedder.embed_with_states(some, urgent=False)
            else:
                found += [(embedding, None) for embedding in await self._embedder.embed_many(some)]
        return found

    async def head(self, tenant: str) -> HeadInUse:
        """What names the tenant's intents at the moment."""
        async with self._meaning(tenant) as (meaning, held):
            labels = tuple(sorted(meaning.model.labels))
            active = held.active[0] if held.active else 0
            return HeadInUse(meaning.version, labels, meaning.model.embedder, active, held.problem)

    async def prepare(self) -> Meaning:
        """Load or train the shared head. Callers share one attempt; after a failed one, the next call tries again."""
        if self._shared is not None:
            return self._shared
        if self._preparing is None or self._preparing.done():
            # in a context of its own: the end of the request that starts it must not end it
            self._preparing = asyncio.create_task(self._prepare(), context=contextvars.Context())
        return await asyncio.shield(self._preparing)

    async def check_health(self) -> None:
        """Serve asks this before a replica takes calls, so the head stands when the first message comes."""
        await self.prepare()

    async def close(self) -> None:
        if self._heads is not None:
            await self._heads.close()

    @asynccontextmanager
    async def _meaning(self, tenant: str) -> AsyncIterator[tuple[Meaning, Held]]:
        """What one whole answer goes by, however long it takes."""
        with self._place():
            shared = self._shared or await self.prepare()
            held = await self._heads.of(tenant) if self._heads is not None and tenant else Held()
            yield held.meaning or shared, held

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._waiting >= self._max_waiting:
            raise Overloaded("too many messages wait to be classified")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _prepare(self) -> Meaning:
        info = await self._embedder.describe()
        if self._complexity is None:
            self._complexity = await asyncio.to_thread(_packaged)
            self._by_text_alone = info.name != complexity.EMBEDDER
        self._model, name = info.name, f"{info.name}@{info.revision}"
        if self._store is not None:
            self._heads = TenantHeads(self._store, name)
        path = (
            self._cache / f"intents-{await asyncio.to_thread(fingerprint, name, self._examples)}.npz"
            if self._cache is not None
            else None
        )
        head = await trained_once(path, name, info.dimensions, self._examples, self._embedder.embed_many)
        definitions = {label: {"needs_products": label in PRODUCTS} for label in head.labels}
        self._shared = Meaning(0, SharedModel(head, self._threshold), definitions)
        return self._shared

    def _score(self, text: str, embedding: Embedding) -> float | None:
        if self._complexity is None:
            return None
        return self._complexity.score(text, None if self._by_text_alone else embedding)


def _understood(
    meaning: Meaning, texts: Sequence[str], found: Sequence[tuple[Embedding, States | None]]
) -> list[Understanding]:
    return [replace(meaning.of(text, *one), embedding=[]) for text, one in zip(texts, found, strict=True)]


def _packaged() -> Scorer | None:
    try:
        return packaged_ranks()
    except (OSError, ValueError) as error:
        log.warning("messages have no complexity, and the default model answers: %s", error)
        return None
