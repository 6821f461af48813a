"""A Brain that is started with another embedder: it says so and goes on, and `brain reindex` makes the new vectors."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments.embedder import Embedder
from domain.product_indexing import space_of_products
from domain.vectors import Space
from storage.vectors import open_vectors
from tests.conftest import free_port, wait_until
from tests.e2e.brain import ROOT, Brain, clean_environment
from tests.e2e.test_memory import active, search, settled, vectors_are_messages
from tests.tiny_bert import tiny_bert

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DIMENSIONS = 48
SAID = ["The creme brulee torch is broken.", "Where is my parcel?", "Can I pay by card?"]
UNLIKE = "the crème brûlée tòrch is bröken."
"""Other words than those of `SAID[0]`, and the same to the new model, which reads no accents."""

DYING = """
import os
from serve_app.cli import app, reindex

async def die(*_):
    os._exit(137)

reindex._products = die
app()
"""
"""A `brain reindex` that is killed when the messages' new space is the active one and before the first product."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="brain-other-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    return str(tiny_bert(folder / "bert", DIMENSIONS))


@pytest.fixture(scope="module")
def brain(folder: Path, model: str) -> Iterator[Brain]:
    """Messages and a product are indexed by the packaged embedder; then it is started again with the other one."""
    brain = Brain(folder / "data", free_port(), []).start()
    try:
        conversation = brain.conversation(user_id="ann")
        for text in SAID:
            assert brain.send(conversation, text, model="scripted").status_code == 200
        lamp = {"title": "Desk lamp", "price": 20, "currency": "USD", "url": "https://shop.example/lamp"}
        assert brain.http.put("/api/v1/catalog/products/lamp", json=lamp).status_code == 201
        wait_until(lambda: settled(brain) and vectors_are_messages(brain) and products(brain) == {"lamp"}, 60, 0.3)
        assert "brain reindex" not in brain.log.read_text(), "nothing was said, for nothing was wrong"
    finally:
        assert brain.stop(60) == 0
    brain.environment["BRAIN_EMBEDDER_MODEL"] = model
    brain.start()
    yield brain
    assert brain.stop(60) == 0
    assert brain.processes() == []


def products(brain: Brain, space: Space | None = None) -> set[str]:
    """Which products have a vector in the space."""

    async def look() -> set[str]:
        store = open_vectors(str(brain.data / "vectors"), space_of_products(space or active(brain)))
        try:
            return {one.id for one in await store.fetch(brain.tenant, ["lamp", "chair"])}
        finally:
            await store.close()

    return asyncio.run(look())


def tables(brain: Brain, space: Space) -> list[str]:
    """What the folder of the vectors holds of this space."""
    return [path.name for path in (brain.data / "vectors").iterdir() if path.name.startswith(space.name)]


def reindex(brain: Brain, program: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(program or [sys.executable, "-m", "serve_app.cli"]), "reindex", "--data", str(brain.data)],
        env=clean_environment(**brain.environment),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


def test_the_start_says_that_another_embedders_vectors_are_there_and_the_chat_goes_on(brain, model):
    def told() -> str | None:
        lines = [line for line in brain.log.read_text().splitlines() if "run `brain reindex`" in line]
        return lines[0] if lines else None

    line = wait_until(told, 60, what="a word about the embedder")
    assert "indexed by all-MiniLM-L6-v2@" in line and f"the embedder is {model}@" in line
    indexer = brain.http.get("/health/detailed").json()["components"]["indexer"]
    assert indexer["status"] == "down" and "brain reindex" in indexer["last_error"]["message"]

    before = active(brain)
    turn = brain.send(brain.conversation(user_id="ann"), "The quokka arrived.", model="scripted")
    assert turn.status_code == 200 and turn.json()["turn"]["status"] == "completed"
    for path in ("messages/search?q=parcel", f"messages/{turn.json()['user_message']['id']}/similar"):
        answer = brain.http.get(f"/api/v1/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "other_embedder"), answer.text
        assert "run `brain reindex`" in answer.json()["error"]["message"]
    assert active(brain) == before and not settled(brain), "it waits to be indexed"


def test_a_reindex_makes_the_new_vectors_and_the_old_ones_go(brain, model):
    before = active(brain)
    deleted = id_of(brain, SAID[1])
    assert brain.http.delete(f"/api/v1/messages/{deleted}").status_code == 200
    done = reindex(brain)
    assert done.returncode == 0, done.stderr[-2000:]
    stored = brain.sql("SELECT count(*) FROM brain.messages WHERE tenant_id = %s AND content <> ''", brain.tenant)
    assert f"messages: 0 of {stored[0][0]}" in done.stderr and "products: 1 of 1" in done.stderr
    assert f"{stored[0][0]} messages in" in done.stdout and f"{model}@" in done.stdout

    now = active(brain)
    assert (now.embedder.rsplit("@")[0], now.dimensions) == (model, DIMENSIONS) and now.name != before.name
    wait_until(lambda: settled(brain) and vectors_are_messages(brain), 60, 0.3, "vectors that are the messages")
    assert products(brain) == {"lamp"}
    wait_until(lambda: brain.http.get("/health/detailed").json()["components"]["indexer"]["status"] == "ok", 20)

    torch = id_of(brain, SAID[0])
    assert search(brain, UNLIKE, role="user")[0]["id"] == torch, "by the new vectors: no word of it was said"
    near = brain.http.get(f"/api/v1/messages/{torch}/similar", params={"role": "user"}).json()["data"]
    texts = [one["message"]["content"] for one in near]
    assert sorted(texts) == sorted([SAID[2], "The quokka arrived."]), "none doubled, none lost, none deleted"
    asked, *others = asyncio.run(Embedder(model).embed_many([SAID[0], *texts]))
    assert [one["score"] for one in near] == pytest.approx((np.array(others) @ np.array(asked)).tolist(), abs=1e-4)

    assert tables(brain, before), "whoever still searches there may finish"
    brain.sql("UPDATE brain.vector_spaces SET retired_at = retired_at - interval '3 min' WHERE state = 'retired'")
    wait_until(lambda: not tables(brain, before), 30, what="the end of the old vectors")
    assert tables(brain, now) and vectors_are_messages(brain)
    wait_until(lambda: brain.sql("SELECT state FROM brain.vector_spaces") == [("active",)], 10)


def test_the_service_indexes_the_products_that_a_killed_reindex_left(brain):
    before = active(brain)
    assert products(brain) == {"lamp"}
    chair = {"title": "Desk chair", "price": 90, "currency": "USD", "url": "https://shop.example/chair"}
    assert brain.http.put("/api/v1/catalog/products/chair", json=chair).status_code == 201
    died = reindex(brain, [sys.executable, "-c", DYING])
    assert died.returncode == 137, died.stderr[-2000:]
    assert active(brain).name != before.name, "the messages' part was done"
    wait_until(lambda: products(brain) == {"lamp", "chair"}, 30, what="the products' vectors")
    wait_until(lambda: settled(brain) and vectors_are_messages(brain), 60, 0.3)


def id_of(brain: Brain, content: str) -> str:
    """The id of the message that says this, without asking the service."""
    [(id,)] = brain.sql("SELECT id FROM brain.messages WHERE tenant_id = %s AND content = %s", brain.tenant, content)
    return str(id)
