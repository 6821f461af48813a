"""Memory by meaning on a running Brain: found through HTTP, removed with the message, whole after crashes."""

import asyncio
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from domain.vectors import Space
from storage.vectors import open_vectors
from tests.conftest import wait_until
from tests.e2e.brain import BRAIN, clean_environment

pytestmark = pytest.mark.cluster


def search(brain, q, **query):
    answer = brain.http.get("/api/v1/messages/search", params={"q": q, "limit": 10, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["degraded"] == []
    return [one["message"] for one in answer.json()["data"]]


def active(brain) -> Space:
    [(name, embedder, dimensions)] = brain.sql(
        "SELECT name, embedder, dimensions FROM brain.vector_spaces WHERE state = 'active'"
    )
    return Space(name, embedder, dimensions)


def vectors_are_messages(brain) -> bool:
    """Whether the tenant's vectors are exactly those of its messages."""
    ids = {
        id for (id,) in brain.sql("SELECT id FROM brain.messages WHERE tenant_id = %s AND content <> ''", brain.tenant)
    }

    async def look() -> tuple[int, int]:
        store = open_vectors(str(brain.data / "vectors"), active(brain))
        try:
            return await store.count(brain.tenant), len(await store.fetch(brain.tenant, list(ids)))
        finally:
            await store.close()

    return asyncio.run(look()) == (len(ids), len(ids))


def settled(brain) -> bool:
    [(waiting,)] = brain.sql("SELECT count(*) FROM brain.outbox WHERE NOT confirmed @> '{indexer}'")
    return (
        waiting == 0 and brain.sql("SELECT filled_at FROM brain.vector_spaces WHERE state = 'active'")[0][0] is not None
    )


def test_a_message_is_found_by_its_meaning_and_by_its_words_until_it_is_deleted(brain, other_tenant):
    first, second = brain.conversation(user_id="mia"), brain.conversation(user_id="noah")
    turn = brain.send(first, "My violin arrived broken, and the zylophone too.").json()
    brain.send(second, "Can I pay by credit card?")
    asked = turn["user_message"]["id"]
    wait_until(
        lambda: asked in [m["id"] for m in search(brain, "my new fiddle came damaged")][:1],
        60,
        what="the nearest message, first of all that other tests have said",
    )
    assert search(brain, "zylophone", role="user")[0]["id"] == asked
    assert asked not in [m["id"] for m in search(brain, "zylophone", user_id="noah")]
    near = brain.http.get(f"/api/v1/messages/{asked}/similar", params={"limit": 5}).json()
    assert near["data"] and asked not in [one["message"]["id"] for one in near["data"]]
    third = brain.conversation()
    brain.send(third, "The guitar that I bought is damaged.")
    alike = brain.http.get(f"/api/v1/conversations/{third}/similar", params={"user_id": "mia"}).json()["data"]
    assert alike[0]["conversation"]["id"] == first
    assert other_tenant.get("/api/v1/messages/search", params={"q": "zylophone"}).json()["data"] == []
    assert other_tenant.get(f"/api/v1/messages/{asked}/similar").status_code == 404

    assert brain.http.delete(f"/api/v1/messages/{asked}").status_code == 200
    assert asked not in [m["id"] for m in search(brain, "zylophone")]
    assert brain.http.delete(f"/api/v1/conversations/{second}").status_code == 200
    wait_until(lambda: settled(brain) and vectors_are_messages(brain), 60)


def test_kills_and_an_emptied_redis_lose_and_double_nothing(brain):
    def talk(n: int) -> None:
        conversation = brain.conversation()
        for turn in range(4):
            brain.send(conversation, f"message {n} {turn} about orders and refunds")

    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(1.5):
            for replica in brain.replicas("Indexer"):
                replica.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(talk, range(10)))
    redis.Redis.from_url(brain.redis_url).flushall()
    stop.set()
    killing.join()
    wait_until(lambda: brain.serving("Indexer", 1), 60)
    wait_until(lambda: settled(brain), 150, every=0.5, what="an empty outbox")
    wait_until(lambda: vectors_are_messages(brain), 30, every=0.5, what="vectors that are the messages")


def test_its_lag_is_told(brain):
    def told() -> bool:
        text = brain.http.get("/metrics").text
        return "brain_indexer_lag_rows{" in text and "brain_indexer_lag_seconds{" in text

    wait_until(told, 20)
    assert "indexer" in str(brain.http.get("/health/detailed").json())


def test_a_new_space_is_built_while_it_runs(brain):
    asked = brain.send(brain.conversation(), "The quokka statue arrived broken").json()["user_message"]["id"]
    before = active(brain)
    done = subprocess.run(
        [str(BRAIN), "reindex", "--data", str(brain.data)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "is searched from now on" in done.stdout and "messages:" in done.stderr
    assert active(brain) != before
    wait_until(lambda: settled(brain) and vectors_are_messages(brain), 90, every=0.5)
    assert asked in [m["id"] for m in search(brain, "damaged animal figure")]
