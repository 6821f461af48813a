"""What `domain.vectors.VectorStore` promises, of every backend."""

import asyncio
import pickle

import pytest

from domain.errors import SpaceMismatch
from domain.vectors import Found, Space, Where
from tests.storage.vectors.given import SPACE, record, same, unit

HOSTILE = (
    "' OR '1'='1",
    '"; DROP TABLE x; --',
    "it''s",
    "back\\slash\\'",
    "../../etc/passwd",
    "a/b\\c",
    "%_*?",
    "новый 🙂\u202e",
    "line\nbreak\ttab",
    "$eq",
    "{'$ne': 1}",
    "null",
    " ",
    "x" * 600,
)


async def ids(vectors, tenant="tenant_a", where=None, limit=100, vector=None):
    return [one.id for one in await vectors.search(tenant, vector or unit(1), limit, where)]


async def test_an_empty_index_finds_nothing_and_lets_itself_be_asked_anything(vectors):
    assert await vectors.search("tenant_a", unit(1), 5) == []
    assert await vectors.search("tenant_a", unit(1), 5, Where(user="u", since=1, until=2)) == []
    assert await vectors.fetch("tenant_a", ["msg_1"]) == []
    assert await vectors.count("tenant_a") == 0
    await vectors.upsert("tenant_a", [])
    await vectors.delete("tenant_a", ["msg_1"])
    await vectors.delete("tenant_a", [])
    await vectors.delete_conversation("tenant_a", "conv_1")
    await vectors.delete_tenant("tenant_a")
    await vectors.optimise("tenant_a")
    await vectors.drop()
    assert await vectors.count("tenant_a") == 0


async def test_the_nearest_come_first_with_their_cosine(vectors):
    await vectors.upsert(
        "tenant_a", [record("far", -1), record("near", 3, 4), record("exact", 1), record("side", 0, 1)]
    )
    assert await vectors.search("tenant_a", unit(1), 3) == [
        Found("exact", "conv_1", 1.0),
        Found("near", "conv_1", 0.6),
        Found("side", "conv_1", 0.0),
    ]
    assert (await vectors.search("tenant_a", unit(1), 4))[-1] == Found("far", "conv_1", -1.0)


async def test_equally_near_ones_come_in_order_of_their_ids_also_at_the_cut(vectors):
    names = [f"msg_{number:03}" for number in range(60)]
    await vectors.upsert("tenant_a", [record(name, 1, 2) for name in reversed(names)])
    await vectors.upsert("tenant_a", [record("zzz", 1, 1), record("aaa", 1, 3)])
    assert await ids(vectors, limit=1) == ["zzz"]
    assert await ids(vectors, limit=6) == ["zzz", *names[:5]]
    assert await ids(vectors, limit=62) == ["zzz", *names, "aaa"]


@pytest.mark.parametrize("limit", [0, -1, 1_001])
async def test_a_limit_out_of_bounds_is_refused(vectors, limit):
    await vectors.upsert("tenant_a", [record("msg_1")])
    with pytest.raises(ValueError, match="1 to 1000"):
        await vectors.search("tenant_a", unit(1), limit)


async def test_what_was_written_comes_back_whole_in_the_order_asked_for(vectors):
    one = record("msg_1", 1, 2, 3, user="user_1", intent="refund", role="assistant", at=1_700_000_000.123)
    two = record("msg_2", 3, -4, conversation="conv_2", role="system", at=0.5)
    await vectors.upsert("tenant_a", [one, two])
    found = await vectors.fetch("tenant_a", ["msg_2", "absent", "msg_1"])
    assert len(found) == 2 and same(found[0], two) and same(found[1], one)
    assert await vectors.fetch("tenant_a", []) == []


async def test_many_are_written_and_fetched_in_one_call(vectors):
    await vectors.upsert("tenant_a", [record(f"msg_{number}", number, 1) for number in range(1_300)])
    assert await vectors.count("tenant_a") == 1_300
    names = [f"msg_{number}" for number in range(1_299, -1, -1)]
    assert [one.id for one in await vectors.fetch("tenant_a", names)] == names
    await vectors.delete("tenant_a", names[:1_200])
    assert await vectors.count("tenant_a") == 100


async def test_an_upsert_that_is_repeated_changes_nothing(vectors):
    records = [record(f"msg_{number}", 1, number) for number in range(5)]
    await vectors.upsert("tenant_a", records)
    once = await vectors.search("tenant_a", unit(1), 10)
    await vectors.upsert("tenant_a", records)
    assert await vectors.search("tenant_a", unit(1), 10) == once
    assert await vectors.count("tenant_a") == 5


async def test_a_record_takes_the_place_of_an_earlier_one_with_all_it_holds(vectors):
    await vectors.upsert("tenant_a", [record("msg_1", 1, user="user_1", intent="refund")])
    new = record("msg_1", 0, 1, conversation="conv_2", at=5.0)
    await vectors.upsert("tenant_a", [new])
    assert await vectors.count("tenant_a") == 1
    assert same((await vectors.fetch("tenant_a", ["msg_1"]))[0], new)
    assert await ids(vectors, where=Where(user="user_1")) == []
    assert await vectors.search("tenant_a", unit(0, 1), 2) == [Found("msg_1", "conv_2", 1.0)]


async def test_of_one_id_twice_in_one_call_the_last_one_stays(vectors):
    await vectors.upsert("tenant_a", [record("msg_1", 1), record("msg_2", 1), record("msg_1", 0, 1)])
    assert await vectors.count("tenant_a") == 2
    assert await vectors.search("tenant_a", unit(0, 1), 1) == [Found("msg_1", "conv_1", 1.0)]


async def test_one_tenant_never_finds_anothers_messages(vectors):
    await vectors.upsert("tenant_a", [record("msg_1", 1), record("msg_2", 0, 1)])
    await vectors.upsert("tenant_b", [record("msg_1", 0, 0, 1, user="b"), record("msg_3", 1)])
    assert await ids(vectors, "tenant_a") == ["msg_1", "msg_2"]
    assert await ids(vectors, "tenant_b") == ["msg_3", "msg_1"]
    assert await vectors.fetch("tenant_a", ["msg_3"]) == []
    assert same((await vectors.fetch("tenant_b", ["msg_1"]))[0], record("msg_1", 0, 0, 1, user="b"))
    await vectors.delete("tenant_a", ["msg_3", "msg_1"])
    await vectors.delete_conversation("tenant_a", "conv_1")
    assert (await vectors.count("tenant_a"), await vectors.count("tenant_b")) == (0, 2)
    await vectors.delete_tenant("tenant_b")
    assert await vectors.count("tenant_b") == 0


GIVEN = (
    record("a", 1, 1, conversation="conv_1", user="u1", intent="refund", role="user", at=10.0),
    record("b", 1, 2, conversation="conv_1", user="u1", intent="order", role="assistant", at=20.0),
    record("c", 1, 3, conversation="conv_2", user="u2", intent="refund", role="user", at=30.0),
    record("d", 1, 4, conversation="conv_2", role="system", at=40.0),
    record("e", 1, 5, conversation="conv_3", user="u1", role="user", at=50.0),
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), "abcde"),
        (Where(user="u1"), "abe"),
        (Where(conversation="conv_2"), "cd"),
        (Where(other_than="conv_2"), "abe"),
        (Where(role="user"), "ace"),
        (Where(intent="refund"), "ac"),
        (Where(since=30.0), "cde"),
        (Where(until=30.0), "ab"),
        (Where(since=20.0, until=40.0), "bc"),
        (Where(since=20, until=40), "bc"),
        (Where(user="u1", other_than="conv_1"), "e"),
        (Where(user="u1", intent="refund", role="user", since=5.0, until=15.0, conversation="conv_1"), "a"),
        (Where(conversation="conv_1", other_than="conv_1"), ""),
        (Where(user=""), ""),
        (Where(user="U1"), ""),
        (Where(since=30.0, until=30.0), ""),
    ],
    ids=str,
)
async def test_a_search_finds_what_all_conditions_allow(vectors, where, expected):
    await vectors.upsert("tenant_a", GIVEN)
    await vectors.optimise("tenant_a")
    assert "".join(await ids(vectors, where=where)) == expected


async def test_a_condition_is_applied_before_the_limit(vectors):
    crowd = [record(f"near_{number:03}", 1, user="crowd") for number in range(300)]
    await vectors.upsert("tenant_a", [*crowd, record("far", -1, user="alone")])
    await vectors.optimise("tenant_a")
    assert await ids(vectors, limit=1, where=Where(user="alone")) == ["far"]


async def test_deleted_messages_are_gone_and_can_come_back(vectors):
    await vectors.upsert("tenant_a", GIVEN)
    await vectors.delete("tenant_a", ["b", "absent", "e"])
    assert await ids(vectors) == ["a", "c", "d"]
    assert await vectors.fetch("tenant_a", ["b"]) == []
    await vectors.delete("tenant_a", ["b"])
    await vectors.upsert("tenant_a", [GIVEN[1]])
    assert await ids(vectors) == ["a", "b", "c", "d"]


async def test_a_deleted_conversation_is_gone_and_only_that(vectors):
    await vectors.upsert("tenant_a", GIVEN)
    await vectors.delete_conversation("tenant_a", "conv_1")
    await vectors.delete_conversation("tenant_a", "absent")
    assert await ids(vectors) == ["c", "d", "e"]


async def test_a_deleted_tenant_is_gone_and_may_start_anew(vectors):
    await vectors.upsert("tenant_a", GIVEN)
    await vectors.optimise("tenant_a")
    await vectors.delete_tenant("tenant_a")
    assert await ids(vectors) == [] and await vectors.count("tenant_a") == 0
    await vectors.delete_tenant("tenant_a")
    await vectors.upsert("tenant_a", [record("new", 1)])
    assert await ids(vectors) == ["new"]
    assert await vectors.count("tenant_a") == 1


async def test_optimising_changes_no_answer(vectors):
    for one in GIVEN:
        await vectors.upsert("tenant_a", [one])
    await vectors.delete("tenant_a", ["c"])
    await vectors.optimise("tenant_a")
    await vectors.optimise("tenant_a")
    assert await ids(vectors) == ["a", "b", "d", "e"]
    await vectors.upsert("tenant_a", [GIVEN[2], record("f", 1, 6)])
    await vectors.delete("tenant_a", ["a"])
    assert await ids(vectors) == ["b", "c", "d", "e", "f"]
    await vectors.optimise("tenant_a")
    assert await ids(vectors) == ["b", "c", "d", "e", "f"]
    assert await vectors.count("tenant_a") == 5


async def test_dropping_removes_every_tenant_of_this_space_and_no_other(backend, vectors):
    beside = backend.open(Space("small_2", "small-embedder@2", SPACE.dimensions))
    for tenant in ("tenant_a", "tenant_b", "tenant_c"):
        await vectors.upsert(tenant, [record("msg_1")])
        await beside.upsert(tenant, [record("msg_1"), record("msg_2")])
    await vectors.drop()
    for tenant in ("tenant_a", "tenant_b", "tenant_c"):
        assert await vectors.count(tenant) == 0
        assert await ids(beside, tenant) == ["msg_1", "msg_2"]
    await vectors.upsert("tenant_a", [record("msg_3")])
    assert await ids(vectors) == ["msg_3"]


async def test_one_store_sees_what_another_did(backend, vectors):
    other = backend.open(SPACE)
    await vectors.upsert("tenant_a", GIVEN)
    assert await ids(other) == list("abcde")
    await other.delete("tenant_a", ["a"])
    assert await ids(vectors) == list("bcde")
    await vectors.optimise("tenant_a")
    assert await ids(other) == list("bcde")
    await other.delete_tenant("tenant_a")
    assert await ids(vectors) == []
    await vectors.upsert("tenant_a", GIVEN[:2])
    assert await ids(other) == ["a", "b"]
    await other.drop()
    assert await vectors.count("tenant_a") == 0
    await other.upsert("tenant_a", GIVEN[3:])
    assert await ids(vectors) == ["d", "e"]


async def test_writes_at_once_are_all_kept(backend, vectors):
    other = backend.open(SPACE)

    async def write(store, name):
        for number in range(6):
            await store.upsert("tenant_a", [record(f"shared_{number}", 1), record(f"{name}_{number}", 1)])

    await asyncio.gather(write(vectors, "one"), write(other, "two"), write(vectors, "three"))
    assert await vectors.count("tenant_a") == 24
    assert len(set(await ids(vectors))) == 24


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_is_more_than_a_text(vectors, text):
    tenant = f"tenant {text}"
    mine = record(text, 1, conversation=text, user=text, intent=text)
    await vectors.upsert(tenant, [mine, record("plain", 0, 1, conversation="conv", user="u", intent="i")])
    await vectors.upsert("tenant_b", [record("other", 1)])
    assert await ids(vectors, tenant) == [text, "plain"]
    for where in (Where(user=text), Where(conversation=text), Where(intent=text)):
        assert await ids(vectors, tenant, where) == [text]
    assert await ids(vectors, tenant, Where(other_than=text)) == ["plain"]
    assert same((await vectors.fetch(tenant, [text]))[0], mine)
    await vectors.delete(tenant, [text + "'"])
    assert await vectors.count(tenant) == 2
    await vectors.delete_conversation(tenant, text)
    assert await ids(vectors, tenant) == ["plain"]
    await vectors.upsert(tenant, [mine])
    await vectors.delete(tenant, [text])
    assert await ids(vectors, tenant) == ["plain"]
    await vectors.delete_tenant(tenant)
    assert (await vectors.count(tenant), await vectors.count("tenant_b")) == (0, 1)


async def test_tenants_and_ids_that_join_to_the_same_text_stay_apart(vectors):
    await vectors.upsert("ab", [record("c", 1)])
    await vectors.upsert("a", [record("bc", 0, 1)])
    assert (await ids(vectors, "ab"), await ids(vectors, "a")) == (["c"], ["bc"])


async def test_a_vector_of_another_length_is_refused(vectors):
    await vectors.upsert("tenant_a", [record("msg_1")])
    short = record("msg_2")
    object.__setattr__(short, "vector", [1.0, 0.0])
    with pytest.raises(SpaceMismatch, match="brain reindex"):
        await vectors.upsert("tenant_a", [record("msg_3"), short])
    with pytest.raises(SpaceMismatch, match=r"2 dimensions.*small-embedder@1 \(8 dimensions\)"):
        await vectors.search("tenant_a", [1.0, 0.0], 1)
    assert await vectors.count("tenant_a") == 1


@pytest.mark.parametrize(("embedder", "dimensions"), [("small-embedder@1", 4), ("other-embedder@1", 8)])
async def test_a_space_of_another_embedder_is_refused_by_name(backend, vectors, embedder, dimensions):
    await vectors.upsert("tenant_a", [record("msg_1")])
    other = Space(SPACE.name, embedder, dimensions)
    question = [1.0] + [0.0] * (dimensions - 1)
    for ask in (
        lambda store: store.search("tenant_a", question, 1),
        lambda store: store.upsert("tenant_a", [type(record("x"))("x", "c", question, "user", 1.0)]),
        lambda store: store.fetch("tenant_a", ["msg_1"]),
    ):
        with pytest.raises(SpaceMismatch) as raised:
            await ask(backend.open(other))
        assert str(other) in str(raised.value) and str(SPACE) in str(raised.value)
        again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
        assert (str(again), again.args) == (str(raised.value), raised.value.args)
    assert await ids(vectors) == ["msg_1"]
