"""A store from an address: which backend, what is refused, and that no key is ever shown."""

import asyncio
import socket
import traceback

import pytest

from domain.errors import BrainError, Unavailable
from storage.vectors import open_vectors
from storage.vectors.lance import LanceVectors
from storage.vectors.pinecone import PineconeVectors
from storage.vectors.qdrant import QdrantVectors
from tests.doubles.pinecone_double import KEY, PineconeDouble
from tests.storage.vectors.given import SPACE, record, unit


@pytest.mark.parametrize(
    ("url", "key", "kind"),
    [
        ("{folder}", None, LanceVectors),
        ("lance://{folder}", None, LanceVectors),
        ("qdrant+local://{folder}", None, QdrantVectors),
        ("qdrant://127.0.0.1:6333", "a-key", QdrantVectors),
        ("qdrant://vectors.internal:6333", None, QdrantVectors),
        ("qdrants://vectors.example.com", "a-key", QdrantVectors),
        ("pinecone://index-1a2b3c.svc.aped-4627-b74a.pinecone.io", KEY, PineconeVectors),
    ],
)
async def test_a_url_names_a_backend(tmp_path, url, key, kind):
    store = open_vectors(url.format(folder=tmp_path / "vectors"), SPACE, key)
    assert isinstance(store, kind)
    await store.close()


@pytest.mark.parametrize("scheme", ["", "lance://", "qdrant+local://"])
async def test_a_folder_is_made_when_something_is_stored(tmp_path, scheme):
    store = open_vectors(f"{scheme}{tmp_path}/a folder", SPACE)
    await store.upsert("tenant_a", [record("msg_1")])
    await store.close()
    again = open_vectors(f"{scheme}{tmp_path}/a folder", SPACE)
    assert [one.id for one in await again.search("tenant_a", unit(1), 5)] == ["msg_1"]
    await again.close()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("milvus://hunter2-host", None),
        ("lance://relative/path", None),
        ("qdrant://user:hunter2@host:6333", None),
        ("qdrant://host:6333?api_key=hunter2", None),
        ("qdrant://vectors.example.com:6333", "hunter2"),
        ("qdrant+grpc://host", None),
        ("pinecone://host.pinecone.io", None),
        ("pinecone://key:hunter2@host.pinecone.io", "hunter2"),
        ("pinecone://host.pinecone.io/path", "hunter2"),
        ("pinecone+http://host.pinecone.io", "hunter2"),
        ("pinecone://", "hunter2"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url, key):
    with pytest.raises(ValueError) as raised:
        open_vectors(url, SPACE, key)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value)).split("ValueError:")[-1]


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("scheme", ["qdrant", "pinecone+http"])
async def test_every_call_of_a_backend_that_is_away_is_unavailable(scheme):
    store = open_vectors(f"{scheme}://127.0.0.1:{unused_port()}", SPACE, KEY)
    for call in (
        store.upsert("tenant_a", [record("msg_1")]),
        store.delete("tenant_a", ["msg_1"]),
        store.delete_conversation("tenant_a", "conv_1"),
        store.delete_tenant("tenant_a"),
        store.search("tenant_a", unit(1), 1),
        store.fetch("tenant_a", ["msg_1"]),
        store.count("tenant_a"),
        store.drop(),
    ):
        with pytest.raises(Unavailable) as raised:
            await call
        assert KEY not in "".join(traceback.format_exception(raised.value))
    await store.close()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_pinecone_that_is_overloaded_or_broken_is_unavailable_and_the_call_may_be_repeated(status):
    async with PineconeDouble(SPACE.dimensions, lag=3).serving() as double:
        store = open_vectors(f"pinecone+http://{double.url}", SPACE, KEY)
        double.faults.extend([status])
        with pytest.raises(Unavailable, match=str(status)):
            await store.upsert("tenant_a", [record("msg_1")])
        await store.upsert("tenant_a", [record("msg_1")])
        assert [one.id for one in await store.search("tenant_a", unit(1), 5)] == ["msg_1"]
        await store.close()


async def test_pinecone_refusing_a_key_is_final_and_shows_no_key():
    async with PineconeDouble(SPACE.dimensions).serving() as double:
        store = open_vectors(f"pinecone+http://{double.url}", SPACE, "pcsk_wrong")
        with pytest.raises(BrainError, match="401") as raised:
            await store.search("tenant_a", unit(1), 1)
        assert not isinstance(raised.value, Unavailable)
        assert "pcsk_wrong" not in "".join(traceback.format_exception(raised.value))
        await store.close()


async def test_a_write_to_pinecone_returns_when_searches_see_it():
    async with PineconeDouble(SPACE.dimensions, lag=4).serving() as double:
        store = open_vectors(f"pinecone+http://{double.url}", SPACE, KEY)
        await store.upsert("tenant_a", [record("msg_1"), record("msg_2")])
        assert len(await store.search("tenant_a", unit(1), 5)) == 2
        await store.delete("tenant_a", ["msg_1"])
        assert [one.id for one in await store.search("tenant_a", unit(1), 5)] == ["msg_2"]
        await store.close()


async def test_a_write_that_pinecone_does_not_index_in_time_is_unavailable(monkeypatch):
    monkeypatch.setattr("storage.vectors.pinecone.VISIBLE", 0.1)
    async with PineconeDouble(SPACE.dimensions, lag=1_000_000).serving() as double:
        store = open_vectors(f"pinecone+http://{double.url}", SPACE, KEY)
        with pytest.raises(Unavailable, match="indexed"):
            await store.upsert("tenant_a", [record("msg_1")])
        await store.close()


async def test_pinecone_gets_each_tenant_in_a_namespace_of_its_own():
    async with PineconeDouble(SPACE.dimensions).serving() as double:
        store = open_vectors(f"pinecone+http://{double.url}", SPACE, KEY)
        await asyncio.gather(*(store.upsert(f"tenant_{n}", [record("msg_1")]) for n in range(3)))
        used = [name for name, space in double.namespaces.items() if "msg_1" in space.vectors]
        assert len(used) == 3 and all(name.startswith("small-") for name in used)
        assert double.refused == []
        await store.close()
