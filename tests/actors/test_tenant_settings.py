"""What a tenant is set to counts in the turns of its conversations, from the next one on."""

import psycopg
import pytest

from domain.errors import Unavailable
from domain.tenant_settings import TenantSettings
from tests.actors.test_context import Recalls, ask, key, prompts  # noqa: F401  (key: a fixture)


async def test_a_tenants_system_prompt_stands_before_the_conversations_own(world, key, database_url):  # noqa: F811
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE brain.conversations SET system_prompt = 'Talk of lamps.' WHERE id = %s", [key.conversation]
        )
    world.tenants.are(system_prompt="Be kind.")
    host = await world.host()
    await ask(host, key, "hello")
    world.tenants.are(system_prompt="Be brief.")
    await ask(host, key, "and the red one?")
    world.tenants.are()
    await ask(host, key, "thanks")
    told = [[m["content"] for m in prompt if m["role"] == "system"] for prompt in prompts(world, key)]
    assert told == [["Be kind.\n\nTalk of lamps."], ["Be brief.\n\nTalk of lamps."], ["Talk of lamps."]]


async def test_a_changed_system_prompt_is_reckoned_as_read_by_no_model(world, key):  # noqa: F811
    world.tenants.are(system_prompt="Be kind.")
    host = await world.host()
    await ask(host, key, "hello")
    same = await ask(host, key, "and the red one?")
    world.tenants.are(system_prompt="Be brief.")
    changed = await ask(host, key, "thanks")
    shared = [
        (await world.trace(key.tenant, one.turn.id))["context"]["shared_prefix_tokens"] for one in (same, changed)
    ]
    assert shared[0] > 0 and shared[1] == 0


async def test_another_owner_goes_on_under_the_same_prompt(world, key):  # noqa: F811
    world.tenants.are(system_prompt="Be kind.")
    await ask(await world.host(), key, "hello")
    ended = await ask(await world.host(), key, "and the red one?")
    assert prompts(world, key)[-1][0] == {"role": "system", "content": "Be kind."}
    trace = await world.trace(key.tenant, ended.turn.id)
    assert trace["context"]["shared_prefix_tokens"] > 0


async def test_a_tenant_without_recall_has_no_memory(world, key):  # noqa: F811
    host = await world.host()
    host.parts.memory = memory = Recalls()
    world.tenants.are(features={"recall": False})
    await ask(host, key, "which lamp?", model="auto")
    assert memory.asked == []
    world.tenants.are(features={"recall": True})
    await ask(host, key, "which lamp?", model="auto")
    assert len(memory.asked) == 1


async def test_no_message_is_answered_while_the_settings_cannot_be_read(world, key):  # noqa: F811
    host = await world.host()
    world.tenants.current = None
    with pytest.raises(Unavailable):
        await ask(host, key, "hello")
    world.tenants.current = TenantSettings()
    assert (await ask(host, key, "hello")).turn.status == "completed"
