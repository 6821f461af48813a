"""What dies in mid-stream, seen from the outside: nothing acknowledged is lost, nothing is said twice."""

import signal

import httpx
import psutil
import pytest

from benchmarks.mock_spec import reply_tokens
from tests.conftest import wait_until
from tests.e2e.brain import check_ids, resumed, text_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
SLOW = "mock,n=120,itl=50"  # six seconds


@pytest.fixture(autouse=True)
def whole_service(brain):
    """Every test begins and ends with a service that answers."""

    def answers():
        try:
            ready = brain.http.get("/health/ready").status_code == 200
            return ready and brain.send(brain.conversation(), "are you there", model="small").status_code == 200
        except (httpx.HTTPError, AssertionError):
            return False

    wait_until(answers, 90, 0.5, what="the service")
    yield
    for deployment, number in (("ConversationHost", 2), ("Ingress", 2), ("HostedLLM", 1)):
        wait_until(lambda d=deployment, n=number: brain.serving(d, n), 90, 0.5, what=f"replicas of {deployment}")
    wait_until(answers, 90, 0.5, what="the service")


def whole(message, n=120):
    return "".join(reply_tokens(message, n))


def finished(brain, conversation, events, message):
    """The stream's end, its text and what is stored agree; there is one reply."""
    check_ids(events)
    assert events[-1]["type"] == "turn.completed", events[-1]
    assert text_of(events) == events[-1]["message"]["content"] == whole(message)
    stored = brain.check(conversation)
    assert stored[-1]["content"] == whole(message) and len(stored) == 2


def owner(brain, conversation) -> psutil.Process:
    """The host replica whose metrics say that it holds an unfinished turn is not known from outside: kill either."""
    return brain.replicas("ConversationHost")[0]


def test_the_death_of_the_hosts_costs_no_second_call_and_no_event(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "host dies", model=SLOW).deltas(5)
    for host in brain.replicas("ConversationHost"):
        host.kill()
    events = resumed(brain, stream)
    finished(brain, conversation, events, "host dies")
    assert calls.of("host dies") == 1
    assert stream.longest_pause < 10


def test_a_message_that_waits_for_its_answer_survives_its_host(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "first of two", model=SLOW).deltas(3)
    queued = brain.stream(conversation, "second of two", model="small")
    assert queued.turn
    for host in brain.replicas("ConversationHost"):
        host.kill()
    assert brain.ended(queued.turn, 60)["status"] == "completed"
    assert brain.ended(stream.turn)["status"] == "completed"
    assert len(brain.check(conversation)) == 4 and calls.of("first of two") == 1


def test_the_death_of_an_ingress_is_a_reconnect(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "ingress dies", model=SLOW).deltas(5)
    for ingress in brain.replicas("Ingress"):
        ingress.kill()
    events = resumed(brain, stream, 90)
    finished(brain, conversation, events, "ingress dies")
    assert calls.of("ingress dies") == 1


def test_the_death_of_the_models_process_is_a_reset(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "model dies", model=SLOW).deltas(5)
    for llm in brain.replicas("HostedLLM"):
        llm.kill()
    events = resumed(brain, stream, 90)
    finished(brain, conversation, events, "model dies")
    assert "turn.reset" in {event["type"] for event in events}
    assert events[-1]["attempt"] == 2 and calls.of("model dies") == 2
    assert brain.events(stream.turn).finish().events[0]["id"].endswith("/1/1")


def test_a_paused_host_that_comes_back_is_fenced(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "host sleeps", model=SLOW).deltas(3)
    hosts = brain.replicas("ConversationHost")
    for host in hosts:
        host.suspend()
    alive = "SELECT 1 FROM brain.hosts WHERE renewed_at > now() - interval '3 seconds'"
    wait_until(lambda: brain.sql(alive) == [], 20, what="the end of their leases")
    for host in hosts:
        host.resume()
    events = resumed(brain, stream, 90)
    finished(brain, conversation, events, "host sleeps")
    assert calls.of("host sleeps") == 1


def test_a_restart_of_postgres_loses_nothing(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "postgres restarts", model=SLOW).deltas(3)
    postmaster = next(p for p in brain.processes("bin/postgres") if "-D" in p.cmdline())
    postmaster.send_signal(signal.SIGQUIT)
    refused = brain.send(brain_conversation_now(brain, conversation), "meanwhile", model="small")
    assert refused.status_code in (200, 503), refused.text
    if refused.status_code == 503:
        assert int(refused.headers["retry-after"]) > 0
    events = resumed(brain, stream, 90)
    check_ids(events)
    assert events[-1]["type"] == "turn.completed" and text_of(events) == whole("postgres restarts")
    wait_until(lambda: _quiet(brain, conversation), 60)
    stored = brain.check(conversation)
    assert whole("postgres restarts") in [message["content"] for message in stored]
    assert calls.of("postgres restarts") == 1


def brain_conversation_now(brain, conversation):
    return conversation


def _quiet(brain, conversation):
    try:
        turns = {message["turn_id"] for message in brain.messages(conversation)}
        return all(brain.turn(turn)["status"] in ("completed", "failed", "cancelled") for turn in turns)
    except (httpx.HTTPError, AssertionError, KeyError):
        return False


def test_without_redis_turns_still_commit_and_streams_say_so(brain, calls):
    conversation = brain.conversation()
    redis = next(p for p in brain.processes("redis-server"))
    redis.suspend()
    try:
        answer = brain.send(conversation, "no redis", model="small")
        assert answer.status_code == 200, answer.text
        stream = brain.stream(conversation, "no redis, streamed", model="small").finish()
        assert stream.events[0]["resumable"] is False
        assert stream.events[-1]["type"] == "turn.completed"
        assert stream.events[-1]["message"]["content"] == whole("no redis, streamed", 8)
    finally:
        redis.resume()
    assert len(brain.check(conversation)) == 4


def test_the_death_of_redis_in_mid_stream_is_survived(brain, calls):
    conversation = brain.conversation()
    stream = brain.stream(conversation, "redis dies", model=SLOW).deltas(5)
    for redis in brain.processes("redis-server"):
        redis.kill()
    events = resumed(brain, stream, 90)
    finished(brain, conversation, events, "redis dies")
    assert calls.of("redis dies") == 1
    streamed = brain.stream(conversation, "after", model="small")
    wait_until(lambda: streamed.events and streamed.events[-1]["type"] == "turn.completed", 30)


def test_a_dead_classifier_costs_the_intent_only(brain):
    for replica in brain.replicas("IntentClassifier"):
        replica.kill()
    conversation = brain.conversation()
    answer = brain.send(conversation, "hello", model="small")
    assert answer.status_code == 200, answer.text
    wait_until(lambda: brain.serving("IntentClassifier", 1), 60)


def test_a_dead_ray_is_started_again(brain):
    """The raylet's death takes every replica with it."""
    conversation = brain.conversation()
    answer = brain.send(conversation, "before", model="small")
    assert answer.status_code == 200
    replicas = {replica.pid for replica in brain.processes("ServeReplica")}
    for raylet in brain.processes("/raylet/raylet"):
        raylet.kill()

    def again():
        if replicas & {replica.pid for replica in brain.processes("ServeReplica")}:
            return False  # those of the dead Ray may answer for a while
        try:
            return brain.send(conversation, "after", model="small").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(again, 150, 1, what="Ray")
    stored = brain.check(conversation)
    assert next(m["content"] for m in stored if m["role"] == "user") == "before"
