"""`GET /api/v1/events` and the operator's topics, from the outside."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from domain.ids import new_id
from domain.limits import Rule
from serve_app.cli import app
from serve_app.event_relay import EventRelay
from serve_app.ingress.event_parts import events
from serve_app.ingress.limits_told import LimitsTold
from serve_app.ingress.parts import IngressSettings
from storage.event_log import PostgresEventLog
from storage.event_streams import EventStreams
from storage.event_topics import PostgresTopics
from storage.redis import open_redis
from tests.storage.events_world import until
from tests.unit.ingress_world import KEY, World, world
from tests.unit.test_ingress_models import make_key

PATH, TOPICS = "/api/v1/events", "/api/v1/admin/events/topics"


@pytest.fixture
async def brain(database_url: str, tenant: str, redis_url: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01, keep_alive=0.3)) as made:
        made.parts.events = events(made.pool, redis_url)
        made.parts.limiter.told = LimitsTold(made.pool).saw
        streams = EventStreams(open_redis(redis_url))
        relay = EventRelay(PostgresEventLog(made.pool), streams, PostgresTopics(made.pool))
        relay.start()
        yield made
        await relay.close()
        await made.parts.events.close()


class Stream:
    """What a client is sent, as it comes."""

    def __init__(self, brain: World, query: str = "", headers: dict[str, str] | None = None) -> None:
        self._brain, self._query, self._headers = brain, query, headers or {}
        self.blocks: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self.ended = False

    async def __aenter__(self) -> "Stream":
        begun = asyncio.Event()
        self._task = asyncio.create_task(self._read(begun))
        await asyncio.wait_for(begun.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [block["data"] for block in self.blocks]

    @property
    def once(self) -> list[dict[str, Any]]:
        """Each event as it came first: one that is being published at this moment may come from the outbox, and again
        from the stream."""
        found: dict[str, dict[str, Any]] = {}
        for event in self.events:
            found.setdefault(event["id"], event)
        return list(found.values())

    @property
    def types(self) -> list[str]:
        return [block["event"] for block in self.blocks]

    async def _read(self, begun: asyncio.Event) -> None:
        block: dict[str, Any] = {}
        async with self._brain.http.stream("GET", PATH + self._query, headers=self._headers) as answer:
            assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                begun.set()
                if line.startswith(":"):
                    self.comments.append(line)
                elif line:
                    name, _, value = line.partition(": ")
                    block[name] = json.loads(value) if name == "data" else value
                elif "data" in block:
                    self.blocks.append(block)
                    block = {}
        self.ended = True


async def following(brain: World, stream: Stream) -> None:
    assert brain.parts.events is not None
    tail = brain.parts.events.feed._tail
    await until(lambda: tail._readers)


async def test_a_turn_is_told_as_cloud_events_and_any_id_is_gone_on_behind(brain: World) -> None:
    conversation = await brain.conversation()
    async with Stream(brain, f"?conversation_id={conversation}") as stream:
        await following(brain, stream)
        sent = (await brain.send(conversation)).json()
        await until(lambda: "turn.completed" in stream.types)
    answered = ["message.received", "response.generated", "message.processed", "turn.completed"]
    assert stream.types[-4:] == answered and set(stream.types[:-4]) <= {"conversation.created"}
    stream.blocks = stream.blocks[-4:]
    first = stream.events[0]
    assert first == {
        "specversion": "1.0",
        "id": first["id"],
        "source": f"/tenants/{brain.tenant}",
        "type": "message.received",
        "time": first["time"],
        "partitionkey": conversation,
        "subject": sent["user_message"]["id"],
        "datacontenttype": "application/json",
        "data": {
            "conversation_id": conversation,
            "message_id": sent["user_message"]["id"],
            "turn_id": sent["turn"]["id"],
            "seq": 1,
        },
    }
    assert first["id"].startswith("evt_") and len({event["id"] for event in stream.events}) == 4
    for place in range(3):
        headers = {"last-event-id": stream.blocks[place]["id"]}
        async with Stream(brain, f"?conversation_id={conversation}", headers) as rest:
            await until(lambda rest=rest, place=place: len(rest.blocks) == 3 - place)
            assert rest.blocks == stream.blocks[place + 1 :]
    async with Stream(brain, f"?topics=turn.*&after={stream.blocks[0]['id']}&conversation_id={conversation}") as turns:
        await until(lambda: turns.types == ["turn.completed"])


async def test_events_since_a_time_come_from_the_stream_or_from_the_outbox(brain: World, redis_url: str) -> None:
    conversation = await brain.conversation()
    await brain.send(conversation)
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    query = f"?since={since}&conversation_id={conversation}"
    async with Stream(brain, query) as stream:
        await until(lambda: "turn.completed" in stream.types)
    redis = open_redis(redis_url)
    await redis.delete(f"brain:events:{brain.tenant}")
    await redis.aclose()
    async with Stream(brain, query) as kept:
        await until(lambda: "turn.completed" in kept.types)
    told = {event["id"]: event for event in stream.events}
    assert {event["id"]: event for event in kept.events} == told
    assert (await brain.http.get(f"{PATH}?since=1700000000")).status_code == 422


async def test_a_message_is_put_in_as_it_is_stored_at_that_moment(brain: World) -> None:
    conversation = await brain.conversation()
    sent = (await brain.send(conversation)).json()
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    query = f"?since={since}&conversation_id={conversation}&include=message&topics=message.received,response.generated"
    async with Stream(brain, query) as stream:
        await until(lambda: len(stream.once) == 2)
    assert stream.once[0]["data"]["message"] == sent["user_message"]
    assert stream.once[1]["data"]["message"] == sent["message"]
    await brain.http.delete(f"/api/v1/messages/{sent['message']['id']}")
    async with Stream(brain, query) as stream:
        await until(lambda: len(stream.once) == 2)
    assert stream.once[1]["data"]["message"] is None
    assert (await brain.http.get(f"{PATH}?include=text")).status_code == 422


async def test_who_sees_its_own_conversations_alone_is_told_of_these(brain: World, database_url: str) -> None:
    ann = new_id("usr")
    own, another = await brain.conversation(user_id=ann), await brain.conversation(user_id="ben")
    headers = make_key(database_url, brain.tenant, "agents-own")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO brain.users (tenant_id, id, email, email_key, role) VALUES (%s, %s, 'a@x', %s, 'own')",
            [brain.tenant, ann, ann],
        )
        connection.execute(
            "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'own', %s)",
            [brain.tenant, ["events:read", "conversations:read"]],
        )
        connection.execute("UPDATE brain.api_keys SET user_id = %s, role = 'own' WHERE role = 'agents-own'", [ann])
    refused = await brain.http.get(f"{PATH}?conversation_id={another}&seconds=0", headers=headers)
    assert refused.status_code == 404
    async with Stream(brain, "", headers) as stream:
        await following(brain, stream)
        await brain.send(another)
        await brain.send(own)
        await until(lambda: "turn.completed" in stream.types)
        assert {event["partitionkey"] for event in stream.events} == {own}


async def test_silence_is_kept_alive_and_tells_ids_that_were_not_shown(brain: World) -> None:
    conversation = await brain.conversation()
    async with Stream(brain, "?topics=product.*") as stream:
        await following(brain, stream)
        await brain.send(conversation)
        await until(lambda: ": keep-alive" in stream.comments)
        assert stream.blocks == []


async def test_a_stream_ends_when_its_credential_counts_no_more(brain: World, database_url: str) -> None:
    async with Stream(brain, "", make_key(database_url, brain.tenant, "owner")) as stream:
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE brain.api_keys SET revoked_at = now() WHERE role = 'owner' AND name = 'k'")
        await brain.parts.callers.flush()
        await until(lambda: stream.ended)
    assert stream.comments[-1] == ": this credential counts no more"


async def test_a_refused_request_is_told_once_a_minute(brain: World) -> None:
    async with Stream(brain, "?topics=limit.exceeded") as stream:
        await following(brain, stream)
        for _ in range(5):
            brain.parts.limiter.told(brain.tenant, Rule("b", "tenant", "requests", 100, 1))
        await until(lambda: stream.blocks)
        other = LimitsTold(brain.pool)  # of another replica
        other.saw(brain.tenant, Rule("b", "tenant", "requests", 100, 1))
        await asyncio.gather(*other._telling)
        other.saw(brain.tenant, Rule("b", "key", "tokens", 5, 1))
        await until(lambda: len(stream.blocks) == 2)
    assert [event["data"] for event in stream.events] == [
        {"limit": "tenant_requests", "value": 100},
        {"limit": "key_tokens", "value": 5},
    ]


async def test_topics_are_made_read_acknowledged_and_removed(brain: World) -> None:
    name = f"t{new_id('int')[-8:]}"
    made = await brain.http.post(TOPICS, json={"name": name, "patterns": ["turn.*"]}, headers={"idempotency-key": name})
    assert (made.status_code, made.json()["patterns"]) == (201, ["turn.*"])
    again = await brain.http.post(
        TOPICS, json={"name": name, "patterns": ["turn.*"]}, headers={"idempotency-key": name}
    )
    assert again.json() == made.json() and again.headers["idempotent-replayed"] == "true"
    taken = await brain.http.post(TOPICS, json={"name": name, "patterns": ["*"]})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "name_taken")
    for wrong in ({"name": "No", "patterns": ["*"]}, {"name": "x", "patterns": []}, {"name": "x", "patterns": ["*.a"]}):
        assert (await brain.http.post(TOPICS, json=wrong)).status_code == 422
    assert (await brain.http.post(f"{TOPICS}/{name}/groups", json={"name": "billing"})).status_code == 201
    conversation = await brain.conversation()
    group = f"{TOPICS}/{name}/groups/billing"

    async def read() -> list[dict[str, Any]]:
        answer = await brain.http.post(f"{group}/read", json={"consumer": "a", "wait": 0.2})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def sent() -> list[dict[str, Any]]:  # the relay hears of a topic within seconds
        await brain.send(conversation)
        return await read()

    found = await until(sent, 30)
    assert {one["event"]["type"] for one in found} == {"turn.completed"} and found[0]["delivery"] == 1
    nacked = await brain.http.post(f"{group}/nack", json={"ids": [found[0]["id"]], "error": "no"})
    assert nacked.json() == {"object": "events.counted", "count": 1, "dead_letters": 0}
    (again,) = [one for one in await until(read) if one["id"] == found[0]["id"]]
    assert again["delivery"] == 2
    done = await brain.http.post(f"{group}/ack", json={"ids": [found[0]["id"]]})
    assert done.json()["count"] == 1
    told = (await brain.http.get(f"{TOPICS}/{name}")).json()
    assert told["groups"][0]["name"] == "billing" and told["length"] >= 1
    past = "2026-01-01T00:00:00Z"
    assert (await brain.http.post(f"{group}/replay", json={"since": past})).status_code == 200
    assert found[0]["id"] in [one["id"] for one in await read()]
    assert (await brain.http.delete(group)).json()["deleted"] is True
    assert (await brain.http.delete(f"{TOPICS}/{name}")).json()["deleted"] is True
    assert (await brain.http.get(f"{TOPICS}/{name}")).status_code == 404
    assert (await brain.http.delete(f"{TOPICS}/brain")).status_code == 409
    assert (await brain.http.get("/api/v1/admin/events/statistics")).json()["object"] == "events.statistics"


async def test_dead_letters_are_listed_and_handed_out_again(brain: World) -> None:
    name = f"d{new_id('int')[-8:]}"
    await brain.http.post(TOPICS, json={"name": name, "patterns": ["budget.*"]})
    await brain.http.post(f"{TOPICS}/{name}/groups", json={"name": "billing"})
    assert brain.parts.events is not None
    queue = brain.parts.events.queue
    queue._rules = type(queue._rules)(tries=1)
    from tests.storage.test_queue import event

    await queue.publish(name, [event(1)])
    (found,) = (await brain.http.post(f"{TOPICS}/{name}/groups/billing/read", json={})).json()["data"]
    body = {"ids": [found["id"]], "error": "it does not fit"}
    assert (await brain.http.post(f"{TOPICS}/{name}/groups/billing/nack", json=body)).json()["dead_letters"] == 1
    (letter,) = (await brain.http.get(f"{TOPICS}/{name}/dead")).json()["data"]
    assert (letter["error"], letter["group"], letter["event"]) == ("it does not fit", "billing", event(1).json())
    listed = await command(brain, "dead", name)
    assert listed.exit_code == 0, listed.output
    sent = await command(brain, "dead", name, "--redrive", "--json")
    assert json.loads(sent.stdout)[0]["id"] == letter["id"], sent.output
    assert (await brain.http.get(f"{TOPICS}/{name}/dead")).json()["data"] == []
    assert len((await brain.http.post(f"{TOPICS}/{name}/groups/billing/read", json={})).json()["data"]) == 1
    await brain.http.delete(f"{TOPICS}/{name}")


async def command(brain: World, *arguments: str) -> Result:
    environment = {"BRAIN_URL": brain.url, "BRAIN_API_KEY": KEY}
    return await asyncio.to_thread(CliRunner().invoke, app, ["events", *arguments], env=environment)


async def test_the_command_line_tells_topics_and_events(brain: World) -> None:
    listed = await command(brain, "topics", "--json")
    assert "brain" in [one["name"] for one in json.loads(listed.stdout)], listed.output
    assert "brain" in (await command(brain, "topics")).stdout
    conversation = await brain.conversation()
    await brain.send(conversation)
    since = datetime.now(UTC) - timedelta(minutes=5)
    tailed = await command(
        brain, "tail", "--since", since.strftime("%Y-%m-%dT%H:%M:%S"), "--seconds", "1", "--conversation", conversation
    )
    assert [json.loads(line)["type"] for line in tailed.stdout.splitlines()][:1] == ["conversation.created"], tailed
    await brain.http.post(f"{TOPICS}/brain/groups", json={"name": "g"})
    replayed = await command(brain, "replay", "brain", "g", "2026-01-01T00:00:00")
    assert replayed.stdout.startswith("g is handed again"), replayed.output
    await brain.http.delete(f"{TOPICS}/brain/groups/g")


async def test_a_stream_ends_when_its_caller_may_see_less(brain: World, database_url: str) -> None:
    headers = make_key(database_url, brain.tenant, "watcher")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'watcher', %s)",
            [brain.tenant, ["events:read", "conversations:any"]],
        )
    async with Stream(brain, headers=headers) as stream:
        await following(brain, stream)
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "UPDATE brain.roles SET permissions = %s WHERE tenant_id = %s AND name = 'watcher'",
                [["models:read"], brain.tenant],
            )
        brain.parts.callers.forget(None)
        await until(lambda: stream.ended)
        assert any("has changed" in one for one in stream.comments)
