"""Conversations in a real database, an embedder that needs no model, and an indexer whose process may die anywhere."""

import asyncio
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg

from deployments.indexer import Indexer
from deployments.vector_sync import VectorSync
from domain.commands import UnfinishedTurn
from domain.conversation import ConversationKey
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import OtherEmbedder, Unavailable
from domain.ids import new_id
from domain.indexing import identity
from domain.message import Intent
from domain.ports import Reply
from domain.vectors import Space
from storage.conversations import PostgresConversations
from storage.outbox import PostgresOutbox
from storage.postgres import Pool
from storage.reader import PostgresReader
from storage.spaces import PostgresSpaces
from storage.stored_texts import PostgresStoredTexts
from tests.doubles.vectors import MemoryVectors
from tests.storage.conftest import make_send

DIMENSIONS = 16


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


class WordEmbedder:
    """A text is the sum of its words' vectors, so texts with common words are near. A text in `refused` fails."""

    def __init__(self, name: str = "words", dimensions: int = DIMENSIONS) -> None:
        self.info = EmbedderInfo(name, dimensions, 256, "1")
        self.texts: list[str] = []
        self.refused: set[str] = set()
        self.away = False

    async def describe(self) -> EmbedderInfo:
        return self.info

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> list[Embedding]:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the embedder is away")
        if embedder != identity(self.info):
            raise OtherEmbedder.of(embedder, identity(self.info))
        if self.refused & set(texts):
            raise Unavailable("the embedder failed: out of memory")
        self.texts += [text for text in texts if text != "."]
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> list[float]:
        total = [0.0] * self.info.dimensions
        for word in text.lower().split() or ["nothing"]:
            digest = hashlib.sha256(word.encode()).digest()
            for place in range(self.info.dimensions):
                total[place] += digest[place % 32] / 127.5 - 1
        length = math.sqrt(sum(one * one for one in total))
        return [one / length for one in total]


class Steps:
    """Counts the calls that a process makes of the world, and ends it before or after one of them."""

    def __init__(self) -> None:
        self.made = 0
        self.crash_at: int | None = None
        self.crash_on: str | None = None  # the first point of this name
        self.names: list[str] = []

    async def take(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self._point(f"before {name}")
        result = await call()
        self._point(f"after {name}")
        return result

    def _point(self, name: str) -> None:
        self.names.append(name)
        self.made += 1
        if name == self.crash_on or (self.crash_at is not None and self.made >= self.crash_at):
            raise Crash(name)


class Through:
    """Each coroutine of `inner` as one of the process's steps."""

    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner, self._steps = inner, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._steps.take(
            f"{type(self._inner).__name__}.{name}", lambda: found(*args, **kwargs)
        )


class MemoryWorld:
    """The database at `url`, and vectors and embedder of the test; `indexer()` is a new process each time."""

    def __init__(self, url: str, pool: Pool) -> None:
        self.url, self.pool = url, pool
        self.store, self.reader = PostgresConversations(pool), PostgresReader(pool)
        self.embedder = WordEmbedder()
        self.spaces: dict[str, MemoryVectors] = {}
        self.texts = PostgresStoredTexts(pool)
        self._owner: psycopg.AsyncConnection[Any] | None = None

    def open_store(self, space: Space) -> MemoryVectors:
        return self.spaces.setdefault(space.name, MemoryVectors(space))

    def indexer(self, steps: Steps | None = None, **options: Any) -> Indexer:
        through = (lambda part: part) if steps is None else (lambda part: Through(part, steps))
        opened = {"lease": 60, "pause": 0.001, "most": 3, **options}
        return Indexer(
            through(PostgresOutbox(self.pool, "indexer", **opened)),
            through(PostgresSpaces(self.pool)),
            through(self.texts),
            through(self.embedder),
            lambda space: through(self.open_store(space)),
        )

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        if self._owner is None:
            self._owner = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        cursor = await self._owner.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []

    async def close(self) -> None:
        if self._owner is not None:
            await self._owner.close()

    async def empty(self) -> None:
        for table in ("outbox", "outbox_claims", "outbox_set_aside", "vector_spaces", "conversations"):
            await self.run(f"DELETE FROM brain.{table}")
        await self.run("DELETE FROM brain.outbox_consumers WHERE name <> 'indexer'")

    async def tenant(self) -> str:
        tenant = new_id("ten")
        await self.run("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", tenant)
        return tenant

    async def conversation(self, tenant: str, user: str | None = None) -> ConversationKey:
        key = ConversationKey(tenant, new_id("conv"))
        await self.run(
            "INSERT INTO brain.conversations (tenant_id, id, user_id) VALUES (%s, %s, %s)",
            tenant,
            key.conversation,
            user,
        )
        return key

    async def say(
        self,
        key: ConversationKey,
        text: str,
        answer: str | None = "an answer",
        intent: str | None = None,
        **fields: Any,
    ) -> tuple[str, str | None]:
        """A turn: the ids of its two messages. Without `answer` it stays unfinished."""
        owner = (await self.store.activate(key, str(uuid.uuid4()))).ownership
        send = make_send(key, text)
        accepted = await self.store.accept(key, owner, send)
        if answer is None:
            return send.message_id, None
        meant = None if intent is None else Intent(name=intent, confidence=0.9)
        reply = Reply("completed", new_id("msg"), answer, "scripted", meant, None, None, None, None, {}, 1, **fields)
        turn = UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)
        await self.store.finish(key, owner, turn, 1, reply)
        return send.message_id, reply.message_id

    async def delete_conversation(self, key: ConversationKey) -> None:
        owner = (await self.store.activate(key, str(uuid.uuid4()))).ownership
        await self.store.delete(key, owner)

    async def leases_run_out(self) -> None:
        await self.run("UPDATE brain.outbox_claims SET until = clock_timestamp() - interval '1 s'")
        await self.run("UPDATE brain.vector_spaces SET filler_until = clock_timestamp() - interval '1 s'")

    async def settle(self, indexer: Indexer | None = None) -> Indexer:
        """Work until nothing is left to do."""
        indexer = indexer or self.indexer()
        for _ in range(200):
            await self.leases_run_out()
            worked = await indexer.step()
            filled = await indexer.fill_step()
            [(waiting,)] = await self.run("SELECT count(*) FROM brain.outbox WHERE NOT confirmed @> '{indexer}'")
            if not worked and not filled and not waiting:
                return indexer
        raise AssertionError("it does not come to an end")

    async def active(self) -> MemoryVectors:
        known = await PostgresSpaces(self.pool).active()
        assert known is not None
        return self.open_store(known.space)

    async def expected(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """What stands in Postgres and says something, by tenant and message."""
        found: dict[str, dict[str, tuple[Any, ...]]] = {}
        for tenant, *rest in await self.run(
            "SELECT m.tenant_id, m.id, m.content, m.conversation_id, m.role, c.user_id, t.intent->>'name'"
            " FROM brain.messages m JOIN brain.conversations c ON (c.tenant_id, c.id) = (m.tenant_id,m.conversation_id)"
            " LEFT JOIN brain.turns t ON (t.tenant_id, t.id) = (m.tenant_id, m.turn_id)"
        ):
            if rest[1].strip():
                found.setdefault(tenant, {})[rest[0]] = tuple(rest[1:])
        return found

    async def check(self) -> None:
        """The vectors are those of the messages, exactly."""
        kept = (await self.active()).tenants
        expected = await self.expected()
        assert {tenant: set(ids) for tenant, ids in kept.items() if ids} == {t: set(ids) for t, ids in expected.items()}
        for tenant, ids in expected.items():
            for id, (content, *rest) in ids.items():
                one = kept[tenant][id]
                assert [one.conversation, one.role, one.user, one.intent] == rest
                assert list(one.vector) == self.embedder.vector(content)


def sync_of(world: MemoryWorld, store: MemoryVectors) -> VectorSync:
    return VectorSync(world.texts, world.embedder, store.space, store)
