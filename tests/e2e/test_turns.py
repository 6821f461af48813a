"""Conversations and turns through the running service."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.mock_spec import reply_tokens
from tests.conftest import wait_until
from tests.e2e.brain import check_ids, resumed

pytestmark = pytest.mark.cluster


def expected(message: str, n: int) -> str:
    return "".join(reply_tokens(message, n))


def test_a_conversation_is_made_read_changed_listed_and_deleted(brain):
    conversation = brain.conversation(title="first", user_id="u1", metadata={"a": 1}, system_prompt="be kind")
    path = f"/api/v1/conversations/{conversation}"
    assert brain.http.get(path).json()["title"] == "first"
    changed = brain.http.patch(path, json={"title": "second", "metadata": {"b": 2}}).json()
    assert (changed["title"], changed["metadata"], changed["system_prompt"]) == ("second", {"b": 2}, "be kind")
    listed = brain.http.get("/api/v1/conversations", params={"user_id": "u1"}).json()
    assert [found["id"] for found in listed["data"]] == [conversation] and listed["has_more"] is False
    assert brain.http.delete(path).status_code in (200, 204)
    assert brain.http.get(path).status_code == 404
    assert brain.send(conversation, "hello").status_code == 404


def test_a_turn_is_answered_whole(brain):
    conversation = brain.conversation()
    answer = brain.send(conversation, "hello there", model="small").json()
    assert answer["turn"]["status"] == "completed"
    assert answer["message"]["content"] == expected("hello there", 8)
    assert answer["user_message"]["content"] == "hello there" and answer["message"]["model"] == "small"
    usage = answer["message"]["usage"]
    assert answer["message"]["cost_usd"] == pytest.approx(
        (usage["prompt_tokens"] * 1.0 + usage["completion_tokens"] * 2.0) / 1e6
    )
    assert answer["message"]["intent"]["name"] == "greeting"
    stored = brain.check(conversation)
    assert stored == [answer["user_message"], answer["message"]]


def test_a_stream_says_what_is_stored_and_can_be_read_again_from_any_event(brain):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "stream please", model="mock,n=12,itl=5").finish()
    assert stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream")
    check_ids(stream.events)
    assert stream.events[0]["type"] == "turn.accepted" and stream.events[0]["id"].endswith("/1/1")
    last = stream.events[-1]
    assert last["type"] == "turn.completed" and last["message"] == brain.check(conversation)[1]
    assert stream.text == last["message"]["content"] == expected("stream please", 12)
    whole = brain.events(stream.turn).finish().events
    assert whole == stream.events
    for event in stream.events[:-1:3]:
        again = brain.events(stream.turn, event["id"]).finish().events
        assert again == stream.events[event["n"] :]


def test_a_client_that_left_comes_back_without_a_gap(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "leaving", model="mock,n=60,itl=25").deltas(5)
    stream.leave()
    seen = list(stream.events)
    again = brain.events(stream.turn, seen[-1]["id"]).finish().events
    check_ids(seen + again)
    assert again[-1]["type"] == "turn.completed" and again[-1]["message"]["content"] == expected("leaving", 60)
    assert calls.of("leaving") == 1


def test_several_readers_follow_one_turn(brain):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "many readers", model="mock,n=40,itl=20").deltas(3)
    readers = [brain.events(stream.turn) for _ in range(4)]
    stream.finish()
    for reader in readers:
        assert reader.finish().events == stream.events


def test_a_turn_is_cancelled_and_keeps_what_was_seen(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "cancel me", model="mock,n=500,itl=20").deltas(4)
    answer = brain.http.post(f"/api/v1/turns/{stream.turn}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelled"
    stream.finish()
    assert stream.events[-1]["type"] == "turn.cancelled"
    assert stream.events[-1]["message"]["content"] == stream.text != ""
    assert brain.check(conversation)[1]["status"] == "cancelled"
    wait_until(lambda: calls.stats()["open_streams"] == 0, 2, what="the provider's stream being closed")
    again = brain.http.post(f"/api/v1/turns/{stream.turn}/cancel")
    assert again.status_code == 200 and again.json()["status"] == "cancelled"


def test_turns_wait_are_refused_or_interrupt(brain):
    conversation = brain.conversation()
    slow = brain.stream(conversation, "slow", model="mock,n=500,itl=20").deltas(2)
    queued = brain.stream(conversation, "queued", model="small")
    assert queued.turn
    refused = brain.send(conversation, "no", model="small", on_busy="reject")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_busy")
    answer = brain.send(conversation, "now", model="small", on_busy="interrupt")
    assert answer.status_code == 200 and answer.json()["turn"]["status"] == "completed"
    assert slow.finish().events[-1]["type"] == queued.finish().events[-1]["type"] == "turn.cancelled"
    brain.check(conversation)


def test_queued_turns_are_answered_in_order(brain):
    conversation = brain.conversation()
    streams = []
    for i in range(4):
        streams.append(brain.stream(conversation, f"m{i}", model="mock,mode=count,itl=5"))
        assert streams[-1].turn
    assert [stream.finish().text.strip() for stream in streams] == ["1", "3", "5", "7"]
    assert len(brain.check(conversation)) == 8


def test_an_ended_conversation_answers_409_and_stays_readable(brain):
    conversation = brain.conversation()
    brain.send(conversation, "hello", model="small")
    assert brain.http.post(f"/api/v1/conversations/{conversation}/end").json()["status"] == "ended"
    refused = brain.send(conversation, "more", model="small")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_ended")
    assert len(brain.check(conversation)) == 2


def test_fifty_equal_submissions_are_one_turn(brain, calls):
    conversation = brain.conversation()

    def submit(_):
        return brain.send(conversation, "only once", {"Idempotency-Key": "fifty"}, model="mock,n=10,itl=10")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(submit, range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert calls.of("only once") == 1 and len(brain.check(conversation)) == 2
    later = submit(0)
    assert later.content == answers[0].content and later.headers["idempotent-replayed"] == "true"
    other = brain.send(conversation, "another body", {"Idempotency-Key": "fifty"}, model="small")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    streamed = brain.http.post(
        f"/api/v1/conversations/{conversation}/messages",
        json={"content": "only once", "model": "mock,n=10,itl=10", "stream": True},
        headers={"Idempotency-Key": "fifty"},
    )
    assert streamed.status_code == 200 and "turn.completed" in streamed.text and calls.of("only once") == 1


def test_conversations_of_another_tenant_are_not_there(brain, other_tenant):
    conversation = brain.conversation()
    answer = brain.send(conversation, "secret", model="small").json()
    for path in (
        f"conversations/{conversation}",
        f"conversations/{conversation}/messages",
        f"conversations/{conversation}/export",
        f"conversations/{conversation}/metrics",
        f"messages/{answer['message']['id']}",
        f"turns/{answer['turn']['id']}",
        f"turns/{answer['turn']['id']}/events",
        f"turns/{answer['turn']['id']}/trace",
    ):
        assert other_tenant.get(f"/api/v1/{path}").status_code == 404, path
    base = f"/api/v1/conversations/{conversation}"
    assert other_tenant.post(f"{base}/messages", json={"content": "x"}).status_code == 404
    assert other_tenant.patch(base, json={"title": "mine"}).status_code == 404
    assert other_tenant.delete(base).status_code == 404
    assert other_tenant.post(f"{base}/end").status_code == 404
    assert other_tenant.post(f"/api/v1/turns/{answer['turn']['id']}/cancel").status_code == 404
    assert other_tenant.delete(f"/api/v1/messages/{answer['message']['id']}").status_code == 404
    assert other_tenant.get("/api/v1/conversations").json()["data"] == []
    assert len(brain.check(conversation)) == 2


def test_a_conversation_is_exported_and_measured(brain):
    conversation = brain.conversation(title="exported")
    for i in range(3):
        brain.send(conversation, f"message {i}", model="small")
    base = f"/api/v1/conversations/{conversation}"
    exported = brain.http.get(f"{base}/export", params={"format": "jsonl"}).text.splitlines()
    assert len(exported) >= 6
    assert "message 2" in brain.http.get(f"{base}/export", params={"format": "markdown"}).text
    assert brain.http.get(f"{base}/export", params={"format": "json"}).json()
    metrics = brain.http.get(f"{base}/metrics").json()
    assert "6" in str(metrics) and "3" in str(metrics)
    trace = brain.http.get(f"/api/v1/turns/{brain.messages(conversation)[-1]['turn_id']}/trace").json()
    assert trace["chosen"] == "small" and trace["attempts"][0]["status"] == "ok"
    assert trace["context"]["budget_tokens"] > 0 and trace["timings_ms"]["total"] > 0


def test_a_deleted_message_leaves_its_number_unused(brain):
    conversation = brain.conversation()
    answer = brain.send(conversation, "to be deleted", model="small").json()
    assert brain.http.delete(f"/api/v1/messages/{answer['message']['id']}").status_code in (200, 204)
    brain.send(conversation, "next", model="small")
    assert [message["seq"] for message in brain.messages(conversation)] == [1, 3, 4]


def test_a_stream_survives_whatever_ingress_it_is_resumed_at(brain):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "hop", model="mock,n=50,itl=20").deltas(2)
    stream.leave()
    events = list(stream.events)
    for _ in range(3):
        part = brain.events(stream.turn, events[-1]["id"]).deltas(3)
        part.leave()
        events += part.events
    events += resumed(brain, brain.events(stream.turn, events[-1]["id"]))
    check_ids(events)
    assert events[-1]["message"]["content"] == expected("hop", 50)


def test_the_built_in_model_answers_by_intent_and_says_what_it_is(brain):
    conversation = brain.conversation()
    first = brain.send(conversation, "where is my order?", model="scripted").json()["message"]["content"]
    second = brain.send(conversation, "thanks a lot", model="scripted").json()["message"]["content"]
    assert "--provider-url" in first and "order" in first and "--provider-url" not in second
