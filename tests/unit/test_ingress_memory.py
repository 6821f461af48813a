"""Search and similarity through HTTP, over the real database: by words, by meaning, for one tenant alone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from domain.conversation import ConversationKey
from domain.embedding import EmbedderInfo
from domain.errors import OtherEmbedder
from domain.ids import new_id
from domain.vectors import VectorRecord
from serve_app.ingress.parts import IngressSettings
from serve_app.memory import FUSION, Memory, fused
from storage.access import key_hash
from storage.bootstrap import bootstrap
from storage.recall import PostgresRecall
from storage.spaces import PostgresSpaces
from tests.conftest import make_database
from tests.storage.memory_world import MemoryWorld, WordEmbedder
from tests.unit.ingress_world import KEY, World, world

SAME = {"parcel": "delivery", "package": "delivery", "shipment": "delivery", "laptop": "computer"}


class Meaning(WordEmbedder):
    """Words of one kind mean the same."""

    def vector(self, text: str) -> list[float]:
        return super().vector(" ".join(SAME.get(word, word) for word in text.lower().split()))


@dataclass
class Remembering:
    brain: World
    memory: MemoryWorld
    search: Memory
    tenant: str

    async def say(self, text: str, answer: str = "noted", user: str | None = None, **fields: Any) -> tuple[str, str]:
        key = await self.memory.conversation(self.tenant, user)
        asked, answered = await self.memory.say(key, text, answer, **fields)
        assert answered is not None
        return asked, answered

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = await self.brain.http.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def found(self, **query: Any) -> list[str]:
        return [one["message"]["content"] for one in (await self.get("messages/search", **query))["data"]]


@pytest.fixture(scope="module")
def url(postgres_folder: Any) -> str:
    return make_database(postgres_folder)


@pytest.fixture
async def made(url: str) -> AsyncIterator[Remembering]:
    tenant = bootstrap(url, KEY)[0]
    async with world(url, tenant, IngressSettings(poll=0.01)) as brain:
        memory = MemoryWorld(url, brain.pool)
        memory.embedder = Meaning()
        await memory.empty()
        search = Memory(PostgresRecall(brain.pool), PostgresSpaces(brain.pool), memory.embedder, memory.open_store)
        brain.parts.memory = search
        await memory.settle()
        yield Remembering(brain, memory, search, tenant)
        await memory.close()


async def test_a_message_is_found_by_its_words_and_by_its_meaning(made: Remembering) -> None:
    await made.say("my parcel is late")
    await made.say("the shipment came")
    await made.say("laptop broken")
    await made.memory.settle()
    found = await made.get("messages/search", q="package late", limit=2)
    assert found["data"][0]["message"]["content"] == "my parcel is late", "no word of it is there but `late`"
    assert found["degraded"] == []
    assert await made.found(q="broken", limit=1) == ["laptop broken"]
    assert set(await made.found(q='"shipment came"', limit=1)) == {"the shipment came"}


async def test_the_answer_is_a_list_of_messages_with_their_scores(made: Remembering) -> None:
    asked, answered = await made.say("unusual words", "indeed unusual", intent="smalltalk")
    await made.memory.settle()
    found = await made.get("messages/search", q="unusual words")
    assert list(found) == ["object", "data", "first_id", "last_id", "has_more", "degraded"]
    assert [list(one) for one in found["data"]] == [["message", "score"]] * 2
    assert (found["first_id"], found["last_id"], found["has_more"]) == (asked, answered, False)
    assert found["data"][0]["message"] == await made.get(f"messages/{asked}")
    assert found["data"][0]["score"] == pytest.approx(2 / (FUSION + 1)), "first in both lists"
    assert found["data"][1]["score"] == pytest.approx(1 / (FUSION + 2)), "second by meaning alone"


async def test_what_was_just_written_is_found_by_words_before_it_is_indexed(made: Remembering) -> None:
    await made.say("freshly said")
    assert await made.found(q="freshly") == ["freshly said"]


async def test_filters_hold_for_both_lists(made: Remembering) -> None:
    await made.say("parcel one", "about the parcel", user="alice", intent="track")
    await made.say("parcel two", user="bob", intent="return")
    await made.memory.settle()
    assert "parcel two" not in await made.found(q="parcel", user_id="alice")
    assert set(await made.found(q="parcel", user_id="alice", role="user")) == {"parcel one"}
    assert set(await made.found(q="parcel", role="assistant", intent="track")) == {"about the parcel"}
    assert set(await made.found(q="package", intent="return", role="user")) == {"parcel two"}
    assert await made.found(q="parcel", since="2999-01-01T00:00:00Z") == []
    assert await made.found(q="parcel", until="2001-01-01T00:00:00Z") == []
    assert set(await made.found(q="parcel", since="2001-01-01T00:00:00+02:00", role="user")) == {
        "parcel one",
        "parcel two",
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "q"),
        ({"q": ""}, "q"),
        ({"q": "  "}, "q"),
        ({"q": "a\0b"}, "q"),
        ({"q": "x" * 1001}, "q"),
        ({"q": "x", "until": "0.5"}, "until"),
        ({"q": "x", "since": "1700000000"}, "since"),
        ({"q": "x", "limit": "0"}, "limit"),
        ({"q": "x", "role": "nobody"}, "role"),
        ({"q": "x", "since": "yesterday"}, "since"),
        ({"q": "x", "since": "2026-01-01T00:00:00"}, "since"),
        ({"q": "x", "since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"q": "x", "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since"),
    ],
)
async def test_a_wrong_query_is_told_by_its_field(made: Remembering, query: dict[str, str], param: str) -> None:
    assert (await made.get("messages/search", 422, **query))["error"]["param"] == param


@pytest.mark.parametrize("q", ["!!! & | <-> :*", "' \\ '' \"", "-", 'the "unclosed', "ключ 鍵 🔑", "a & !b | (c"])
async def test_any_text_may_be_searched_for(made: Remembering, q: str) -> None:
    await made.say(f"it says {q}")
    await made.memory.settle()
    await made.found(q=q)


async def test_another_tenants_text_is_never_found(made: Remembering) -> None:
    asked, _ = await made.say("secret parcel")
    stranger, key = new_id("ten"), "stranger" + new_id("key")
    await made.memory.run("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", stranger)
    await made.memory.run(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'member')",
        stranger,
        new_id("key"),
        key_hash(key),
    )
    await made.memory.settle()
    store = await made.memory.active()
    store.tenants[stranger] = dict(store.tenants[made.tenant])  # an index gone wrong
    headers = {"authorization": f"Bearer {key}"}
    for path in ("messages/search?q=secret+parcel", "messages/search?q=package"):
        answer = await made.brain.http.get(f"/api/v1/{path}", headers=headers)
        assert (answer.status_code, answer.json()["data"]) == (200, [])
    for path in (f"messages/{asked}/similar", f"conversations/{store.tenants[stranger][asked].conversation}/similar"):
        assert (await made.brain.http.get(f"/api/v1/{path}", headers=headers)).status_code == 404


async def test_a_deleted_message_is_not_found_even_while_its_vector_is_there(made: Remembering) -> None:
    asked, answered = await made.say("parcel here", "parcel there")
    await made.memory.settle()
    await made.memory.reader.delete_message(made.tenant, asked)
    assert await made.found(q="package") == ["parcel there"]
    assert await made.found(q="parcel") == ["parcel there"]
    assert (await made.get(f"messages/{answered}/similar"))["data"] == []
    await made.memory.settle()
    assert set((await made.memory.active()).tenants[made.tenant]) == {answered}


@pytest.mark.parametrize("away", ["embedder", "vectors", "space"])
async def test_without_vectors_words_are_searched_and_it_is_said(made: Remembering, away: str) -> None:
    asked, _ = await made.say("my parcel")
    await made.memory.settle()
    if away == "space":
        await made.memory.run("UPDATE brain.vector_spaces SET state = 'retired'")
    else:
        (made.memory.embedder if away == "embedder" else await made.memory.active()).away = True
    found = await made.get("messages/search", q="parcel")
    assert [one["message"]["id"] for one in found["data"]] == [asked]
    assert found["degraded"] == ["vectors"]
    assert (await made.get("messages/search", q="package"))["data"] == []
    if away != "embedder":
        assert (await made.get(f"messages/{asked}/similar", 503))["error"]["code"] == "unavailable"


async def test_another_embedder_is_told_with_what_to_do(made: Remembering) -> None:
    asked, _ = await made.say("my parcel")
    await made.memory.settle()
    made.memory.embedder.info = EmbedderInfo("larger", 16, 256, "7")
    error = (await made.get("messages/search", 409, q="parcel"))["error"]
    assert error["code"] == "other_embedder"
    assert "words@1" in error["message"] and "larger@7" in error["message"] and "brain reindex" in error["message"]
    assert len((await made.get(f"messages/{asked}/similar"))["data"]) == 1, "kept vectors can be compared all the same"


async def test_similar_messages_are_the_nearest_and_not_the_message_itself(made: Remembering) -> None:
    asked, _ = await made.say("parcel late again", "sorry", user="alice")
    await made.say("package late again", "yes", user="bob")
    await made.say("laptop", "no")
    await made.memory.settle()
    found = await made.get(f"messages/{asked}/similar", limit=1)
    assert [one["message"]["content"] for one in found["data"]] == ["package late again"]
    assert found["data"][0]["score"] == pytest.approx(1)
    own = await made.get(f"messages/{asked}/similar", user_id="alice")
    assert [one["message"]["content"] for one in own["data"]] == ["sorry"]
    assert len((await made.get(f"messages/{asked}/similar"))["data"]) == 5
    await made.get(f"messages/{new_id('msg')}/similar", 404)
    await made.get("messages/nonsense/similar", 404)


async def test_a_message_that_is_not_indexed_yet_has_similar_ones_too(made: Remembering) -> None:
    await made.say("package here")
    await made.memory.settle()
    asked, _ = await made.say("parcel here")
    found = await made.get(f"messages/{asked}/similar", limit=1)
    assert found["data"][0]["message"]["content"] == "package here"


async def test_similar_conversations_are_those_in_which_most_of_it_was_said(made: Remembering) -> None:
    async def talk(*texts: str, user: str | None = None) -> str:
        key = await made.memory.conversation(made.tenant, user)
        for text in texts:
            await made.memory.say(key, text)
        return key.conversation

    mine = await talk("parcel late", "laptop broken")
    both = await talk("laptop broken", "something else", "package late", user="alice")
    one = await talk("shipment late", "how much is it")
    none = await talk("good morning dear friends")
    await made.memory.settle()
    found = await made.get(f"conversations/{mine}/similar")
    order = [each["conversation"]["id"] for each in found["data"]]
    assert order[:2] == [both, one] and mine not in order and found["first_id"] == both
    scores = {each["conversation"]["id"]: each["score"] for each in found["data"]}
    assert scores[both] == pytest.approx(1) and scores[one] < 0.9 and scores.get(none, 0) < scores[one]
    hers = await made.get(f"conversations/{mine}/similar", user_id="alice")
    assert [each["conversation"]["id"] for each in hers["data"]] == [both]
    assert (await made.get(f"conversations/{await made.brain.conversation()}/similar"))["data"] == []
    await made.get(f"conversations/{new_id('conv')}/similar", 404)


async def test_past_exchanges_are_the_same_users_alone(made: Remembering) -> None:
    await made.say("where is my parcel", "in the depot", user="alice")
    await made.say("where is my parcel", "on the ship", user="bob")
    here = await made.memory.conversation(made.tenant, "alice")
    await made.memory.say(here, "where is my parcel", "said here")
    nobody = await made.memory.conversation(made.tenant)
    await made.memory.settle()
    vector = made.memory.embedder.vector("where is my package")
    found = await made.search.similar(here, "alice", "where is my package", vector, 5)
    assert [(one.question, one.answer) for one in found] == [("where is my parcel", "in the depot")]
    assert found[0].score == pytest.approx(1)
    assert await made.search.similar(here, "alice", "where is my package", None, 5) == found
    assert await made.search.similar(nobody, "carol", "where is my package", vector, 5) == []
    assert await made.search.similar(ConversationKey(new_id("ten"), here.conversation), "alice", "x", vector, 5) == []
    made.memory.embedder.info = EmbedderInfo("larger", 16, 256, "7")
    fresh = Memory(
        PostgresRecall(made.brain.pool),
        PostgresSpaces(made.brain.pool),
        made.memory.embedder,
        made.memory.open_store,
    )
    with pytest.raises(OtherEmbedder):
        await fresh.similar(here, "alice", "where is my package", vector, 5)


async def test_an_answer_that_was_made_anew_is_told_in_its_new_form(made: Remembering) -> None:
    await made.say("where is my parcel", "old answer", user="alice")
    await made.memory.run("UPDATE brain.messages SET superseded_by = 'msg_x' WHERE content = 'old answer'")
    here = await made.memory.conversation(made.tenant, "alice")
    await made.memory.settle()
    vector = made.memory.embedder.vector("where is my parcel")
    assert await made.search.similar(here, "alice", "where is my parcel", vector, 5) == []


async def test_words_are_looked_up_in_their_index(made: Remembering) -> None:
    await made.memory.run("SET enable_seqscan = off")
    plan = await made.memory.run("EXPLAIN SELECT message_id FROM brain.message_words WHERE words @@ 'parcel'::tsquery")
    assert "message_words_found" in str(plan)
    await made.memory.run("RESET enable_seqscan")


async def test_a_record_of_a_message_that_never_was_finds_nothing(made: Remembering) -> None:
    await made.say("my parcel")
    await made.memory.settle()
    store = await made.memory.active()
    await store.upsert(
        made.tenant,
        [VectorRecord(new_id("msg"), new_id("conv"), made.memory.embedder.vector("my parcel"), "user", 0.0)],
    )
    assert (await made.found(q="my parcel"))[0] == "my parcel"


def test_ranks_are_fused_as_the_paper_says() -> None:
    scores = fused([["a", "b", "c"], ["b", "d"]])
    assert list(scores) == ["b", "a", "d", "c"]
    assert scores["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert scores["a"] == pytest.approx(1 / 61)


async def test_without_an_index_the_routes_say_so(made: Remembering) -> None:
    made.brain.parts.memory = None
    assert (await made.get("messages/search", 503, q="x"))["error"]["code"] == "unavailable"


async def test_the_description_names_the_routes(made: Remembering) -> None:
    answer: httpx.Response = await made.brain.http.get("/openapi.json")
    paths = answer.json()["paths"]
    for path in ("messages/search", "messages/{message_id}/similar", "conversations/{conversation_id}/similar"):
        assert "get" in paths[f"/api/v1/{path}"]
