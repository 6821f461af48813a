import psycopg
import pytest

from domain.commands import Send
from domain.conversation import ConversationKey
from domain.ids import new_id
from domain.ports import Reply
from storage.conversations import PostgresConversations
from tests.conftest import make_database, redis_server
from tests.servers.given import open_pool


@pytest.fixture
async def pool(database_url):
    pool = await open_pool(database_url, 6)
    yield pool
    await pool.close()


@pytest.fixture
def store(pool):
    return PostgresConversations(pool)


def make_conversation(url: str, tenant: str, user: str | None = None) -> ConversationKey:
    key = ConversationKey(tenant, new_id("conv"))
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO brain.conversations (tenant_id, id, user_id) VALUES (%s, %s, %s)",
            (tenant, key.conversation, user),
        )
    return key


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


def make_send(key: ConversationKey, text: str = "hello", **changes) -> Send:
    turn = new_id("turn")
    fields = {"idempotency_key": f"auto-{turn}", "body_hash": text.encode(), **changes}
    return Send(key, "key_1", turn_id=turn, message_id=new_id("msg"), content=text, **fields)


def make_reply(text: str = "answer", status: str = "completed") -> Reply:
    return Reply(status, new_id("msg"), text, "scripted", None, None, None, None, None, {}, 1)


@pytest.fixture(scope="module")
def url(postgres_folder):
    """A database of this module alone."""
    return make_database(postgres_folder)


@pytest.fixture
async def world(url):
    """An indexer's world on it, with nothing in it."""
    from tests.storage.memory_world import MemoryWorld  # which needs this file

    pool = await open_pool(url, 8)
    world = MemoryWorld(url, pool)
    await world.empty()
    yield world
    await world.close()
    await pool.close()


@pytest.fixture(scope="module")
def own_redis():
    with redis_server() as url:
        yield url


@pytest.fixture
async def events(url, own_redis):
    from tests.storage.events_world import EventsWorld

    pool = await open_pool(url, 8)
    world = EventsWorld(url, pool, own_redis)
    await world.empty()
    yield world
    await world.close()
    await pool.close()


@pytest.fixture
def name():
    return new_id("ten")
