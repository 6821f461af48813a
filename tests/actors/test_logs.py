"""What turns log names their tenant, though one process serves them all."""

import asyncio
import logging

import pytest

from domain.acting import TENANT
from domain.ids import new_id
from tests.actors.test_conversations import FAST, eventually
from tests.storage.conftest import make_conversation, make_send
from tests.storage.memory_world import MemoryWorld


class Heard(logging.Handler):
    """Records, with the tenant that a line would name."""

    def __init__(self):
        super().__init__()
        self.told = []

    def emit(self, record):
        self.told.append((record.getMessage(), getattr(record, "tenant", None) or TENANT.get()))


@pytest.fixture
def heard():
    handler, logger = Heard(), logging.getLogger("brain")
    logger.addHandler(handler)
    yield handler.told
    logger.removeHandler(handler)


async def test_in_the_host_and_in_the_process_that_generates(world, database_url, heard, monkeypatch):
    tenants = [await MemoryWorld(database_url, world.pool).tenant() for _ in range(3)]
    host = await world.host()
    keys = [make_conversation(database_url, tenant) for tenant in tenants for _ in range(2)]
    classify, generate = world.classifier.classify, world.llm.current._run

    async def classified(text, tenant=""):
        logging.getLogger("brain.test").warning("classifies for %s", tenant)
        return await classify(text, tenant)

    async def generated(name, request, generation):
        logging.getLogger("brain.test").warning("generates for %s", request.tenant)
        return await generate(name, request, generation)

    monkeypatch.setattr(world.classifier, "classify", classified)
    monkeypatch.setattr(world.llm.current, "_run", generated)
    await asyncio.gather(*(host.send(make_send(key, new_id("req"), model=FAST, wait=True)) for key in keys))
    ours = [(words, tenant) for words, tenant in heard if " for ten_" in words]
    assert len(ours) == 12
    assert all(words.endswith(f"for {tenant}") for words, tenant in ours), ours
    assert TENANT.get() is None or TENANT.get() in tenants


async def test_a_sweep_that_takes_over_names_whose_conversation_it_is(world, database_url, heard):
    tenant = await MemoryWorld(database_url, world.pool).tenant()
    key = make_conversation(database_url, tenant)
    host = await world.host(lease=1)  # longer than a busy machine makes it wait: else another sweep takes it over
    accepted = await host.send(make_send(key, model="mock,n=2000,itl=25"))
    actor = host._actors.pop(key)  # what an answer that was lost on its way leaves: it knows nothing of its turn
    for live in actor.turns.values():
        live.task.cancel()

    async def told():
        return [tenant for words, tenant in heard if "taking a conversation up again" in words]

    assert set(await eventually(told, 20)) == {tenant}
    await host.cancel(key, accepted.turn.id)
