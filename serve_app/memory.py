"""Memory by meaning: what an ingress and a host find in the messages of before."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from domain.context import Exchange
from domain.conversation import Conversation, ConversationKey
from domain.embedding import Embedding
from domain.errors import OtherEmbedder, Unavailable
from domain.indexing import SpaceEmbedder, Spaces, identity
from domain.message import Message
from domain.vectors import Found, Space, VectorStore, Where
from storage.recall import Filters, PostgresRecall

log = logging.getLogger("brain.memory")
T = TypeVar("T")

FUSION = 60
"""k of reciprocal rank fusion: a message scores 1 / (k + rank) in each list. 60 as in Cormack, Clarke and Büttcher,
"Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009."""
SPARE = 20  # candidates more than asked for: some may be gone meanwhile
SAID = 16  # messages that stand for a conversation
NEAR = 50  # neighbours of each of these
FRESH = 2.0  # seconds that a prompt's memory takes the active space to be the same; an old one is kept for minutes
PAGE = 1000  # messages whose vectors are asked for at once
BELIEVED = 30.0  # seconds that the running embedder is taken to be the same


@dataclass(frozen=True, slots=True)
class Scored(Generic[T]):
    one: T
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """`degraded`: what could not be asked, so that the answer may lack something."""

    found: list[Scored[Message]]
    degraded: tuple[str, ...] = ()


class Memory:
    """`open_store`: the vectors of a space."""

    def __init__(
        self,
        recall: PostgresRecall,
        spaces: Spaces,
        embedder: SpaceEmbedder,
        open_store: Callable[[Space], VectorStore],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recall, self._spaces, self._embedder, self._open_store = recall, spaces, embedder, open_store
        self._monotonic = monotonic
        self._open: tuple[Space, VectorStore] | None = None
        self._running: tuple[float, str] = (float("-inf"), "")
        self._opening: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._closing: set[asyncio.Task[None]] = set()

    async def search(self, tenant: str, query: str, limit: int, filters: Filters) -> Answer:
        """Messages by their words and by their meaning, merged by reciprocal rank; without the vectors, by words alone.

        Raises `OtherEmbedder` where what is indexed cannot be compared with `query`.
        """
        wanted = 2 * limit + SPARE
        words, meant = await asyncio.gather(
            self._recall.by_words(tenant, query, wanted, filters), self._meant(tenant, query, wanted, filters)
        )
        scores = fused([words, meant or []])
        messages = await self._recall.messages(tenant, list(scores), filters)
        found = [Scored(messages[id], score) for id, score in scores.items() if id in messages]
        return Answer(found[:limit], ("vectors",) if meant is None else ())

    async def similar_messages(
        self, tenant: str, message_id: str, limit: int, filters: Filters
    ) -> list[Scored[Message]]:
        """Messages like this one, the nearest first; `score` is the cosine. Raises `NotFound`, and `Unavailable` where
        the vectors are away."""
        message = await self._recall.message(tenant, message_id)
        space, store = await self._store()
        [vector] = await self._vectors_of(tenant, space, store, [message])
        near = await store.search(tenant, vector, 2 * limit + SPARE, _where(filters))
        messages = await self._recall.messages(tenant, [one.id for one in near if one.id != message_id], filters)
        return [Scored(messages[one.id], one.score) for one in near if one.id in messages][:limit]

    async def similar_conversations(
        self, tenant: str, conversation_id: str, limit: int, user: str | None = None
    ) -> list[Scored[Conversation]]:
        """Conversations in which users said what was said in this one, the most alike first.

        Of each of the last 16 messages that the user said here, the best match in another conversation counts (0 where
        none of the 50 nearest messages is of it); `score` is the mean. That is the late interaction of ColBERT (Khattab
        and Zaharia, SIGIR 2020) with messages in the place of words: a long conversation is no blur of its subjects.
        """
        said = await self._recall.last_said(tenant, conversation_id, SAID)
        if not said:
            return []
        space, store = await self._store()
        vectors = await self._vectors_of(tenant, space, store, said)
        where = Where(user=user, role="user", other_than=conversation_id)
        best: dict[str, float] = {}
        for vector in vectors:
            for id, score in _best(await store.search(tenant, vector, NEAR, where)).items():
                best[id] = best.get(id, 0.0) + max(score, 0.0) / len(vectors)
        order = sorted(best, key=lambda id: (-best[id], id))[: 2 * limit + SPARE]
        kept = await self._recall.conversations(tenant, order, user)
        return [Scored(kept[id], best[id]) for id in order if id in kept][:limit]

    async def similar(
        self, key: ConversationKey, user: str, text: str, embedding: Embedding | None, limit: int
    ) -> list[Exchange]:
        """What `user` asked in other conversations, near to `text`, with the answers; the nearest first. Never another
        user's. `embedding`: the text's by the running
        embedder, where it is at hand. Raises `Unavailable` and `OtherEmbedder`; a prompt goes without then.
        """
        space, store = await self._store(FRESH)
        if embedding is None:
            [embedding] = await self._embedder.embed_for(space.embedder, [text])
        elif (running := await self._identity()) != space.embedder:
            raise OtherEmbedder.of(space.embedder, running)
        where = Where(user=user, role="user", other_than=key.conversation)
        near = await store.search(key.tenant, embedding, 2 * limit + SPARE, where)
        kept = await self._recall.exchanges(key, user, [one.id for one in near])
        return [replace(kept[one.id], score=one.score) for one in near if one.id in kept][:limit]

    async def count_held(self, tenant: str, messages: Sequence[str]) -> int:
        """How many of these messages have a vector. Raises `Unavailable`."""
        if not messages or await self._spaces.active() is None:
            return 0
        _, store = await self._store()
        parts = [messages[start : start + PAGE] for start in range(0, len(messages), PAGE)]
        return sum([len(await store.fetch(tenant, part)) for part in parts])

    async def holds_conversation(self, tenant: str, conversation: str) -> bool:
        """Whether any vector of this conversation is there. Raises `Unavailable`."""
        if await self._spaces.active() is None:
            return False
        space, store = await self._store()
        anything = [1.0, *[0.0] * (space.dimensions - 1)]
        return bool(await store.search(tenant, anything, 1, Where(conversation=conversation)))

    async def close(self) -> None:
        if self._open is not None:
            await self._open[1].close()

    async def _meant(self, tenant: str, query: str, limit: int, filters: Filters) -> list[str] | None:
        """The ids of messages near the meaning of `query`; None where they cannot be asked for."""
        try:
            space, store = await self._store()
            [vector] = await self._embedder.embed_for(space.embedder, [query])
            return [one.id for one in await store.search(tenant, vector, limit, _where(filters))]
        except OtherEmbedder:
            raise
        except Exception as error:
            log.warning("a search goes without vectors: %s: %s", type(error).__name__, error)
            return None

    async def _store(self, old: float = 0.0) -> tuple[Space, VectorStore]:
        """The active space, as it was `old` seconds ago at the most, and its open vectors. Raises `Unavailable` where
        there is none yet."""
        if self._open is not None and self._monotonic() - self._looked < old:
            return self._open
        known, looked = await self._spaces.active(), self._monotonic()
        if known is None:
            raise Unavailable("no messages are indexed yet")
        if self._open is None or self._open[0] != known.space:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._opened(known.space))
            await asyncio.shield(self._opening)  # whoever has no time for it leaves it to the next one
        self._looked = looked
        if self._open is None or self._open[0] != known.space:
            raise Unavailable("the vectors are being opened")
        return self._open

    async def _opened(self, space: Space) -> None:
        """In a thread: the first one loads the backend's library."""
        opened = await asyncio.to_thread(self._open_store, space)
        before, self._open = self._open, (space, opened)
        if before is not None:
            task = asyncio.create_task(before[1].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _vectors_of(
        self, tenant: str, space: Space, store: VectorStore, messages: Sequence[Message]
    ) -> list[Embedding]:
        """Their vectors: the indexed ones, and for those that are not yet indexed new ones."""
        kept = {one.id: one.vector for one in await store.fetch(tenant, [message.id for message in messages])}
        new = [message for message in messages if message.id not in kept]
        if new:
            made = await self._embedder.embed_for(space.embedder, [message.content for message in new])
            kept |= {message.id: vector for message, vector in zip(new, made, strict=True)}
        return [kept[message.id] for message in messages]

    async def _identity(self) -> str:
        until, running = self._running
        if self._monotonic() >= until:
            running = identity(await self._embedder.describe())
            self._running = (self._monotonic() + BELIEVED, running)
        return running


def fused(lists: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores by id, the best first, by the ranks in all lists."""
    scores: dict[str, float] = {}
    for ids in lists:
        for rank, id in enumerate(ids, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (FUSION + rank)
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def _best(found: Sequence[Found]) -> dict[str, float]:
    """The best score of each conversation."""
    best: dict[str, float] = {}
    for one in found:
        best[one.conversation] = max(best.get(one.conversation, -1.0), one.score)
    return best


def _where(filters: Filters) -> Where:
    return Where(
        user=filters.user,
        role=filters.role,
        intent=filters.intent,
        since=None if filters.since is None else filters.since.timestamp(),
        until=None if filters.until is None else filters.until.timestamp(),
    )
