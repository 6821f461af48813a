"""Replies made anew, and several models side by side, through the running service."""

import json

import pytest

from tests.e2e.brain import Stream, check_ids
from tests.e2e.test_turns import expected

pytestmark = pytest.mark.cluster


def regenerate(brain, message, headers=None, **body):
    return brain.http.post(f"/api/v1/messages/{message}/regenerate", json=body, headers=headers)


def versions(brain, message):
    return brain.http.get(f"/api/v1/messages/{message}/versions").json()["data"]


def test_a_reply_is_made_anew_and_the_newest_one_is_told_from_then_on(brain, calls):
    conversation = brain.conversation()
    first = brain.send(conversation, "regenerate me", model="small").json()
    answer = regenerate(brain, first["message"]["id"], model="mock,n=3")
    anew = answer.json()
    assert answer.status_code == 200 and anew["user_message"] == first["user_message"]
    assert anew["message"]["content"] == expected("regenerate me", 3) and anew["message"]["seq"] == 3
    assert calls.of("regenerate me") == 2
    told = brain.send(conversation, "what was said?", model="mock,mode=prompt").json()["message"]["content"]
    assert [(one["role"], one["content"]) for one in json.loads(told)] == [
        ("user", "regenerate me"),
        ("assistant", expected("regenerate me", 3)),
        ("user", "what was said?"),
    ]
    kept = versions(brain, first["user_message"]["id"])
    assert [one["id"] for one in kept] == [first["message"]["id"], anew["message"]["id"]]
    assert [one["superseded_by"] for one in kept] == [anew["message"]["id"], None]
    assert brain.http.get(f"/api/v1/messages/{first['message']['id']}").json() == first["message"]


def test_a_regenerated_turn_is_streamed_and_can_be_read_again(brain):
    conversation = brain.conversation()
    first = brain.send(conversation, "stream it again", model="small").json()
    path = f"/api/v1/messages/{first['message']['id']}/regenerate"
    stream = Stream(brain, "POST", path, {"stream": True, "model": "mock,n=12,itl=5"}).finish()
    check_ids(stream.events)
    assert stream.events[0]["type"] == "turn.accepted"
    assert stream.events[0]["user_message"]["id"] == first["user_message"]["id"]
    assert stream.events[-1]["message"]["content"] == stream.text == expected("stream it again", 12)
    assert brain.events(stream.turn).finish().events == stream.events
    middle = stream.events[5]
    assert brain.events(stream.turn, middle["id"]).finish().events == stream.events[6:]


def test_a_repeated_key_makes_a_reply_anew_once(brain, calls):
    conversation = brain.conversation()
    first = brain.send(conversation, "once more", model="small").json()
    answers = [regenerate(brain, first["message"]["id"], {"Idempotency-Key": "anew"}) for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1 and calls.of("once more") == 2
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    assert len(versions(brain, first["message"]["id"])) == 2


def test_several_models_answer_side_by_side(brain):
    conversation = brain.conversation()
    models = ["mock,n=12,itl=15", "mock,n=9,itl=16"]
    stream = brain.stream(conversation, "side by side", models=models, keep="all").finish()
    check_ids(stream.events)
    said = {0: "", 1: ""}
    for event in stream.events:
        if event["type"] == "candidate.delta":
            said[event["index"]] += event["text"]
    assert said == {0: expected("side by side", 12), 1: expected("side by side", 9)}
    ends = [event for event in stream.events if event["type"] == "candidate.completed"]
    assert {end["model"] for end in ends} == set(models) and all(end["usage"] for end in ends)
    assert stream.events[-1]["message"]["content"] == stream.text == said[0]
    assert brain.events(stream.turn).finish().events == stream.events
    kept = versions(brain, stream.events[-1]["message"]["id"])
    assert {one["content"] for one in kept} == set(said.values())
    trace = brain.http.get(f"/api/v1/turns/{stream.turn}/trace").json()
    assert trace["side_by_side"]["keep"] == "all" and len(trace["attempts"]) == 2


def test_the_first_of_several_models_ends_the_others(brain, calls):
    conversation = brain.conversation()
    answer = brain.send(conversation, "race", models=["mock,n=500,itl=20", "small"])
    assert answer.status_code == 200 and answer.json()["message"]["model"] == "small"
    assert answer.json()["message"]["content"] == expected("race", 8)
    assert calls.stats()["open_streams"] == 0


def test_what_cannot_be_regenerated_is_refused(brain, other_tenant):
    conversation = brain.conversation()
    first = brain.send(conversation, "mine", model="small").json()
    message = first["message"]["id"]
    assert other_tenant.post(f"/api/v1/messages/{message}/regenerate", json={}).status_code == 404
    assert other_tenant.get(f"/api/v1/messages/{message}/versions").status_code == 404
    assert regenerate(brain, message, model="no such model").status_code == 404
    brain.http.post(f"/api/v1/conversations/{conversation}/end")
    assert regenerate(brain, message).json()["error"]["code"] == "conversation_ended"
