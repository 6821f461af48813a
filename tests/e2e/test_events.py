"""Events of a running Brain: followed over HTTP, told again when Redis has lost them, the relay's figures."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import redis

from tests.conftest import wait_until

pytestmark = pytest.mark.cluster

OF_A_TURN = ["message.received", "response.generated", "message.processed", "turn.completed"]


def told(brain, **query) -> list[dict]:
    """The events of a stream that ends after a second, in the order in which each is first told: one that is being
    published may come from the outbox and again from Redis."""
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat().replace("+00:00", "Z")
    with brain.http.stream("GET", "/api/v1/events", params={"since": since, "seconds": 1, **query}) as answer:
        assert answer.status_code == 200, answer.read()
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    return list({event["id"]: event for event in events}.values())


def test_a_turns_events_are_followed_and_survive_a_redis_that_lost_them(brain):
    conversation = brain.conversation()
    turn = brain.send(conversation, "Where is my parcel?").json()

    def complete() -> list[dict]:
        found = told(brain, conversation_id=conversation)
        types = [event["type"] for event in found]
        embedded = types.count("message.embedding_created") == 2
        return found if embedded and "turn.completed" in types else []

    found = wait_until(complete, 60, what="all of the events")
    types = [event["type"] for event in found]
    assert types[0] == "conversation.created"
    assert [type for type in types if type in OF_A_TURN] == OF_A_TURN
    received = found[types.index("message.received")]
    assert received["subject"] == turn["user_message"]["id"] and received["partitionkey"] == conversation
    assert "parcel" not in json.dumps(found)

    with redis.Redis.from_url(brain.redis_url) as emptied:
        emptied.flushall()
        stream = f"brain:events:{brain.tenant}"
        wait_until(lambda: emptied.exists(stream), 30, what="a relay that noticed")
    again = {event["id"] for event in wait_until(complete, 60)}
    assert {event["id"] for event in found} <= again


def test_the_relay_tells_its_figures_and_topics_are_the_operators(brain):
    wait_until(lambda: "brain_relay_lag_seconds" in brain.http.get("/metrics").text, 30)
    answer = brain.http.get("/api/v1/admin/events/topics/brain")
    assert answer.status_code == 200 and answer.json()["length"] > 0, answer.text
