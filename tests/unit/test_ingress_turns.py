"""Turns: the answer that was waited for, its replays, and the event stream with its resumption."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.errors import JournalUnavailable, Overloaded
from domain.ids import new_id
from domain.model import Catalog
from serve_app.ingress.parts import IngressSettings
from serve_app.ingress.sse import KEEP_ALIVE
from tests.unit.ingress_world import Script, World, world

FAILURE = {"message": "it broke", "type": "provider_error", "param": None, "code": "provider_error"}


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


def ids(blocks: list[str]) -> list[str]:
    """`attempt/n` of every event, with its type."""
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        body = json.loads(fields["data"])
        assert fields["id"] == f"{body['turn_id']}/{body['attempt']}/{body['n']}"
        assert fields["event"] == body["type"]
        assert list(body)[:4] == ["type", "turn_id", "attempt", "n"]
        found.append(f"{body['attempt']}/{body['n']} {body['type']}")
    return found


def body_of(block: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(block.split("data: ", 1)[1])
    return found


WHOLE = ["1/1 turn.accepted", "1/2 turn.model", "1/3 message.delta", "1/4 message.delta", "1/5 turn.completed"]


async def test_a_turn_that_was_waited_for(brain: World) -> None:
    conversation = await brain.conversation()
    answer = await brain.send(conversation, metadata={"b": 1, "a": 2}, model="small")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["turn", "user_message", "message"]
    turn = "id object conversation_id status attempt model error usage created_at completed_at"
    assert list(body["turn"]) == turn.split()
    message = (
        "id object conversation_id turn_id seq role content status model intent usage cost_usd citations metadata"
        " created_at"
    )
    assert list(body["message"]) == message.split()
    assert (body["message"]["content"], body["message"]["cost_usd"]) == ("Hello", 1.1e-06)
    assert body["user_message"]["seq"] == 1
    assert (await brain.http.get(f"/api/v1/turns/{body['turn']['id']}")).json() == body["turn"]
    assert (await brain.http.get(f"/api/v1/messages/{body['message']['id']}")).json() == body["message"]
    trace = (await brain.http.get(f"/api/v1/turns/{body['turn']['id']}/trace")).json()
    assert trace["turn_id"] == body["turn"]["id"]
    assert trace["chosen"] == "small"
    sent = brain.hosts.sent[0]
    assert sent.idempotency_key == f"auto-{sent.turn_id}"
    assert (sent.wait, sent.live, sent.understand) == (True, False, True)


@pytest.mark.parametrize("error", [None, FAILURE, {**FAILURE, "code": "provider_timeout"}])
async def test_a_replay_is_the_first_answer_byte_for_byte(brain: World, error: dict[str, Any] | None) -> None:
    conversation = await brain.conversation()
    brain.hosts.script = Script(error=error)
    headers = {"idempotency-key": new_id("req")}
    fields: dict[str, Any] = {"metadata": {"zzz": 1, "b": {"long": 1e16, "k": -0.0, "é": 0.1}, "a": [1e22, 1.0]}}
    first = await brain.send(conversation, headers=headers, **fields)
    again = await brain.send(conversation, headers=headers, **fields)
    expected = 200 if error is None else 504 if error["code"] == "provider_timeout" else 502
    assert [first.status_code, again.status_code] == [expected] * 2
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    if error is not None:
        assert first.headers["x-should-retry"] == again.headers["x-should-retry"] == "false"
        assert first.json()["error"]["param"] == brain.hosts.sent[0].turn_id
    other = await brain.send(conversation, "another", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    if error is None:
        streamed = await brain.send(conversation, headers=headers, stream=True, **fields)
        assert streamed.headers["idempotent-replayed"] == "true"


async def test_an_unknown_model_is_refused_before_anything_happens(brain: World) -> None:
    conversation = await brain.conversation()
    answer = await brain.send(conversation, model="nope")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"
    assert (await brain.http.get(f"/api/v1/conversations/{conversation}/messages")).json()["data"] == []


async def test_a_replay_is_answered_after_its_model_was_removed(brain: World) -> None:
    conversation, headers = await brain.conversation(), {"idempotency-key": new_id("req")}
    first = await brain.send(conversation, headers=headers, model="small")
    brain.parts.catalog = Catalog()
    again = await brain.send(conversation, headers=headers, model="small")
    assert (again.status_code, again.content) == (200, first.content)
    other = await brain.send(conversation, model="small")
    assert (other.status_code, other.json()["error"]["param"]) == (404, "model")


async def test_the_stream_and_every_replay_of_it_are_the_same_bytes(brain: World) -> None:
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/messages"
    live = await brain.events(path, body={"content": "hi", "stream": True, "metadata": {"bb": 1, "a": 2}})
    assert ids(live) == WHOLE
    assert body_of(live[0])["user_message"]["content"] == "hi"
    assert "".join(body_of(block)["text"] for block in live[2:4]) == "Hello"
    assert list(body_of(live[4]))[4:] == ["message", "usage", "cost_usd"]
    turn = body_of(live[0])["turn_id"]
    stored = await brain.events(f"/api/v1/turns/{turn}/events")
    assert stored == live
    for seen in range(1, 6):
        for given in ({"headers": {"last-event-id": f"{turn}/1/{seen}"}}, {"query": f"?after={turn}/1/{seen}"}):
            rest = await brain.events(f"/api/v1/turns/{turn}/events{given.get('query', '')}", given.get("headers"))
            assert rest == live[seen:]
    for beyond in (f"{turn}/1/99", f"{turn}/7/1"):
        assert await brain.events(f"/api/v1/turns/{turn}/events", {"last-event-id": beyond}) == []


@pytest.mark.parametrize("bad", ["x", "{turn}", "{turn}/1", "{turn}/1/0", "{turn}/0/1", "{turn}/1/x", "turn_x/1/1"])
async def test_an_id_that_is_none_of_this_turns_is_400(brain: World, bad: str) -> None:
    turn = (await brain.send(await brain.conversation())).json()["turn"]["id"]
    answer = await brain.http.get(f"/api/v1/turns/{turn}/events", headers={"last-event-id": bad.format(turn=turn)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_event_id")


async def test_a_second_reader_joins_and_resumes_while_the_turn_runs(brain: World) -> None:
    conversation, go = await brain.conversation(), asyncio.Event()
    brain.hosts.script = Script(go=go)
    path = f"/api/v1/conversations/{conversation}/messages"
    first = asyncio.create_task(brain.events(path, body={"content": "hi", "stream": True}))
    while not brain.journal.followed:
        await asyncio.wait((first,), timeout=0.01)
    turn = brain.hosts.sent[0].turn_id
    second = asyncio.create_task(brain.events(f"/api/v1/turns/{turn}/events"))
    third = asyncio.create_task(brain.events(f"/api/v1/turns/{turn}/events?after={turn}/1/2"))
    while len(brain.journal.followed) < 3:
        await asyncio.wait((first,), timeout=0.01)
    go.set()
    whole = await first
    assert ids(whole) == WHOLE
    assert await second == whole
    assert await third == whole[2:]


async def test_without_a_journal_the_stream_says_so_and_still_ends(brain: World) -> None:
    brain.hosts.script = Script(journalled=False)
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/messages"
    live = await brain.events(path, body={"content": "hi", "stream": True})
    assert ids(live) == ["1/1 turn.accepted", "1/2 turn.completed"]
    assert body_of(live[0])["resumable"] is False
    assert body_of(live[1])["message"]["content"] == "Hello"
    turn = body_of(live[0])["turn_id"]
    assert await brain.events(f"/api/v1/turns/{turn}/events") == live


@pytest.mark.parametrize("layout_lost", [False, True])
async def test_a_journal_lost_on_the_way_leaves_no_gap_and_no_repeat(brain: World, layout_lost: bool) -> None:
    go = asyncio.Event()
    brain.hosts.script = Script(go=go, layout_lost=layout_lost)
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/messages"
    async with brain.http.stream("POST", path, json={"content": "hi", "stream": True}) as answer:
        text = ""
        async for chunk in answer.aiter_text():
            text += chunk
            if "turn.model" in text and not go.is_set():
                await brain.journal.lose()
                go.set()
    live = [block for block in text.split("\n\n") if block]
    if layout_lost:
        assert ids(live) == [*WHOLE[:2], "1/3 turn.completed"]
    else:
        assert ids(live) == WHOLE
        turn = body_of(live[0])["turn_id"]
        assert await brain.events(f"/api/v1/turns/{turn}/events") == live
    assert body_of(live[-1])["message"]["content"] == "Hello"


async def test_a_later_attempt_is_told_live_and_replayed_by_the_rules(brain: World) -> None:
    brain.hosts.script = Script(resets=True)
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/messages"
    live = await brain.events(path, body={"content": "hi", "stream": True})
    second = ["2/1 turn.reset", "2/2 message.delta", "2/3 message.delta", "2/4 turn.completed"]
    assert ids(live) == ["1/1 turn.accepted", "1/2 turn.model", "1/3 message.delta", *second]
    turn = body_of(live[0])["turn_id"]
    events = f"/api/v1/turns/{turn}/events"
    assert await brain.events(events) == [live[0], *live[3:]]
    for seen in ("1/1", "1/2", "1/3", "1/50"):
        assert await brain.events(events, {"last-event-id": f"{turn}/{seen}"}) == live[3:]
    assert await brain.events(events, {"last-event-id": f"{turn}/2/2"}) == live[5:]


async def test_a_failed_turns_stream_ends_with_its_error_and_the_kept_text(brain: World) -> None:
    for deltas in (("part",), ()):
        brain.hosts.script = Script(deltas=deltas, error=FAILURE)
        conversation = await brain.conversation()
        path = f"/api/v1/conversations/{conversation}/messages"
        live = await brain.events(path, body={"content": "hi", "stream": True})
        end = body_of(live[-1])
        assert (end["type"], end["error"]) == ("turn.failed", FAILURE)
        assert ("message" in end) == bool(deltas)
        assert await brain.events(f"/api/v1/turns/{end['turn_id']}/events") == live


async def test_a_slow_reader_is_dropped_without_a_terminal_event(brain: World) -> None:
    go = asyncio.Event()
    brain.hosts.script = Script(go=go)
    conversation = await brain.conversation()
    await brain.journal.lose(Overloaded("too slow"))
    path = f"/api/v1/conversations/{conversation}/messages"
    assert ids(await brain.events(path, body={"content": "hi", "stream": True})) == WHOLE[:1]
    go.set()


async def test_silence_is_filled_with_comments(database_url: str, tenant: str) -> None:
    async with world(database_url, tenant, IngressSettings(poll=0.01, keep_alive=0.1)) as brain:
        go = asyncio.Event()
        brain.hosts.script = Script(go=go)
        conversation = await brain.conversation()
        for lost in (False, True):
            if lost:
                await brain.journal.lose(JournalUnavailable())
                go.clear()
            path, text = f"/api/v1/conversations/{conversation}/messages", ""
            async with brain.http.stream("POST", path, json={"content": "hi", "stream": True}) as answer:
                async for chunk in answer.aiter_text():
                    text += chunk
                    if text.count(KEEP_ALIVE.decode()) == 2:
                        go.set()
            assert ids([block for block in text.split("\n\n") if block and block[0] != ":"]) == WHOLE


async def test_leaving_does_not_stop_a_turn(brain: World) -> None:
    go = asyncio.Event()
    brain.hosts.script = Script(go=go)
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/messages"
    async with brain.http.stream("POST", path, json={"content": "hi", "stream": True}) as answer:
        async for _ in answer.aiter_text():
            break
    go.set()
    turn = brain.hosts.sent[0].turn_id
    await brain.hosts.running[turn]
    assert brain.hosts.cancelled == []
    assert ids(await brain.events(f"/api/v1/turns/{turn}/events")) == WHOLE


async def test_cancelling_answers_the_turn_and_leaves_an_ended_one_alone(brain: World) -> None:
    go = asyncio.Event()
    brain.hosts.script = Script(go=go)
    conversation = await brain.conversation()
    waiting = asyncio.create_task(brain.send(conversation))
    while not brain.hosts.running:
        await asyncio.wait((waiting,), timeout=0.01)
    turn = brain.hosts.sent[0].turn_id
    cancelled = await brain.http.post(f"/api/v1/turns/{turn}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    answer = await waiting
    assert (answer.status_code, answer.json()["message"]["status"]) == (200, "cancelled")
    again = await brain.http.post(f"/api/v1/turns/{turn}/cancel")
    assert again.json() == cancelled.json()
    assert brain.hosts.cancelled == [turn]
    assert (await brain.http.post(f"/api/v1/turns/{new_id('turn')}/cancel")).status_code == 404
