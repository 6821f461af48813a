"""Generations against a real HTTP provider on loopback, without a journal: what every fault comes to."""

import asyncio
import json
import time

import pytest
from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context

from benchmarks.mock_provider import MockProvider, serve
from benchmarks.mock_spec import reply_tokens
from deployments.hosted_llm import HostedLLM
from deployments.providers import Piece
from domain.errors import JournalUnavailable, Overloaded, Unavailable
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import parse_catalog

WHOLE = "".join(reply_tokens("hello", 16))
FIVE = "".join(reply_tokens("hello", 5))
KEY = "key-hunter2"


class NoJournal:
    """Redis is down: every method says so."""

    def __getattr__(self, name):
        async def unavailable(*args, **kwargs):
            raise JournalUnavailable()

        return unavailable


@pytest.fixture
async def mock():
    provider = MockProvider(KEY)
    runner, provider.url = await serve(provider)
    yield provider
    await runner.cleanup()


@pytest.fixture
def catalog(mock, monkeypatch):
    monkeypatch.setenv("MOCK_KEY", KEY)
    monkeypatch.delenv("NO_KEY", raising=False)

    def provider(name, url=mock.url, key="${MOCK_KEY}", **fields):
        return {"name": name, "base_url": url, "key": key, "models": [{"id": f"{name}/*"}], **fields}

    hasty = {"connect": 0.5, "first_token": 0.5, "idle": 1, "total": 5}
    return {
        "providers": [
            provider("mock", models=[{"id": "mock*"}], retries=2, timeouts=hasty),
            provider("brief", models=[{"id": "brief", "upstream": "mock,n=99,itl=20"}], timeouts={"total": 0.2}),
            provider("dead", "http://127.0.0.1:1/v1", models=[{"id": "dead"}]),
            provider("keyless", key="${NO_KEY}", models=[{"id": "keyless", "upstream": "mock"}]),
            provider("lost", mock.url + "/nowhere", models=[{"id": "lost"}]),
        ]
    }


@pytest.fixture
async def pauses():
    return []


@pytest.fixture
async def llm(catalog, pauses):
    async def sleep(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    def monotonic():
        return time.monotonic() + sum(pauses)

    llm = HostedLLM(NoJournal(), parse_catalog(catalog), sleep=sleep, monotonic=monotonic, max_concurrent=4)
    yield llm
    await llm.close()


def ask(model="mock", turn="turn_1", content="hello", **fields):
    return GenerationRequest("ten_1", turn, 1, model, [{"role": "user", "content": content}], **fields)


async def until(condition, limit=10):
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_reply_is_whole_and_counted_by_the_provider(llm):
    outcome = await llm.generate(ask("mock,n=500"))
    assert (outcome.ending, outcome.text) == ("completed", "".join(reply_tokens("hello", 500)))
    assert outcome.usage == Usage(prompt_tokens=5, completion_tokens=500, total_tokens=505)
    assert (outcome.finish_reason, outcome.estimated, outcome.model, outcome.error) == (
        "stop",
        False,
        "mock,n=500",
        None,
    )
    [attempt] = outcome.attempts
    assert (attempt.provider, attempt.status, attempt.error) == ("mock", "ok", None)
    assert 0 < attempt.first_token_ms <= attempt.total_ms


@pytest.mark.parametrize("model", ["mock,fault=no_done", "mock,fault=ignore_stream", "mock,fault=no_usage"])
async def test_harmless_oddities_still_complete(llm, model):
    outcome = await llm.generate(ask(model))
    assert (outcome.ending, outcome.text) == ("completed", WHOLE)
    assert outcome.estimated == model.endswith("no_usage")
    assert outcome.usage.completion_tokens > 0


@pytest.mark.parametrize("fault", ["cut", "truncate", "malformed", "error_event", "hang_after"])
async def test_a_fault_after_the_first_token_fails_at_once_and_keeps_the_text(llm, mock, fault):
    outcome = await llm.generate(ask(f"mock,fault={fault},at=5", chain=("scripted",)))
    assert (outcome.ending, outcome.text, outcome.model) == ("failed", FIVE, f"mock,fault={fault},at=5")
    assert outcome.status == (504 if fault == "hang_after" else 502)
    assert outcome.error.keys() == {"message", "type", "param", "code"}
    assert outcome.error["code"] == ("provider_timeout" if fault == "hang_after" else "provider_error")
    assert outcome.estimated
    assert mock.calls == len(outcome.attempts) == 1


@pytest.mark.parametrize("fault", ["cut", "truncate", "error_event", "status=500", "status=429", "status=408"])
async def test_a_passing_fault_before_the_first_token_is_retried(llm, mock, pauses, fault):
    model = f"mock,times=2,{fault}" if "=" in fault else f"mock,times=2,fault={fault}"
    outcome = await llm.generate(ask(model))
    assert (outcome.ending, outcome.text) == ("completed", WHOLE)
    assert [a.status for a in outcome.attempts] == ["error", "error", "ok"]
    assert mock.calls == 3
    assert 0 <= pauses[0] <= 0.5
    assert 0 <= pauses[1] <= 1


async def test_retries_end(llm, mock):
    outcome = await llm.generate(ask("mock,status=503"))
    assert (outcome.ending, outcome.text, outcome.status, outcome.usage) == ("failed", "", 502, None)
    assert "503" in outcome.error["message"]
    assert mock.calls == 3


async def test_retry_after_is_honoured(llm, pauses):
    assert (await llm.generate(ask("mock,status=429,times=1,retry_after=7"))).ending == "completed"
    assert pauses == [7]


async def test_nobody_waits_or_calls_where_the_provider_wants_no_calls_for_an_hour(llm, mock, pauses):
    model = "mock,status=429,times=1,retry_after=3600"
    assert (await llm.generate(ask(model))).ending == "failed"
    outcome = await llm.generate(ask(model, turn="turn_2", chain=("mock,n=5",)))
    assert (outcome.text, outcome.model, pauses, mock.calls) == (FIVE, "mock,n=5", [], 2)
    refused, answered = outcome.attempts
    assert "wants no calls for 3600 s" in refused.error
    assert (refused.usage, answered.why) == (None, "fallback")
    pauses.append(3600)
    assert (await llm.generate(ask(model, turn="turn_3"))).ending == "completed"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_final_refusal_is_not_repeated(llm, mock, status):
    outcome = await llm.generate(ask(f"mock,status={status}"))
    assert (outcome.ending, outcome.status, mock.calls) == ("failed", 502, 1)
    assert f"answered {status}: the mock answers {status}" in outcome.error["message"]


@pytest.mark.parametrize("model", ["mock,fault=hang_before", "mock,fault=hang_after,at=0"])
async def test_a_provider_that_does_not_begin_is_a_timeout(llm, mock, model):
    outcome = await llm.generate(ask(model))
    assert (outcome.ending, outcome.status, outcome.error["code"]) == ("failed", 504, "provider_timeout")
    assert mock.calls == 1
    await until(lambda: mock.open_streams == 0)


async def test_the_whole_call_has_a_limit(llm):
    outcome = await llm.generate(ask("brief"))
    assert (outcome.ending, outcome.status) == ("failed", 504)
    assert "did not finish within 0.2 s" in outcome.error["message"]
    assert outcome.text.startswith(FIVE[:10])


@pytest.mark.parametrize("model", ["dead", "keyless", "lost", "mock,fault=html", "mock,fault=leak", "unknown"])
async def test_what_cannot_be_called_fails_without_showing_the_key(llm, caplog, model):
    outcome = await llm.generate(ask(model))
    assert (outcome.ending, outcome.status) == ("failed", 502)
    assert len(outcome.attempts) == {"dead": 3, "unknown": 0}.get(model, 1)
    assert KEY not in repr(outcome) + caplog.text


async def test_the_chain_answers_instead_before_the_first_token(llm, mock):
    outcome = await llm.generate(ask("keyless", chain=("mock,status=400", "unknown", "mock,n=5", "scripted")))
    assert (outcome.ending, outcome.text, outcome.model) == ("completed", FIVE, "mock,n=5")
    assert [a.model for a in outcome.attempts] == ["keyless", "mock,status=400", "mock,n=5"]
    assert outcome.models == ()  # the journal is away, so nobody was told


async def test_calls_of_tools_are_part_of_the_outcome(llm):
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("find", "order")]
    outcome = await llm.generate(ask("mock,n=3,tools=2", parameters={"tools": tools}, kept=False))
    assert (outcome.ending, outcome.finish_reason) == ("completed", "tool_calls")
    assert [call["function"]["name"] for call in outcome.tool_calls] == ["find", "order"]
    assert all(json.loads(call["function"]["arguments"]) == {"asked": "hello"} for call in outcome.tool_calls)
    assert all(call["id"] and call["type"] == "function" for call in outcome.tool_calls)


async def test_a_turns_tools_go_to_no_model_that_cannot_call_them(llm):
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    outcome = await llm.generate(ask("mock,n=3,tools=1", parameters={"tools": tools}))
    assert (outcome.finish_reason, outcome.tool_calls) == ("stop", ())
    earlier = await llm.generate(ask("mock,n=3", turn="turn_2", round=1, earlier="said before "))
    assert earlier.text.startswith("said before ") and len(earlier.text) > len("said before ")


async def test_a_generation_that_another_process_began_goes_on_after_what_was_said(llm):
    prefix = "".join(reply_tokens("hello", 16)[:6])
    outcome = await llm.generate(ask("mock", prefix=prefix, chain=("scripted",)))
    assert (outcome.ending, outcome.text) == ("completed", WHOLE)
    assert outcome.usage.completion_tokens == 10
    failed = await llm.generate(ask("mock,status=400", turn="turn_2", prefix=prefix, chain=("scripted",)))
    assert (failed.ending, failed.text, len(failed.attempts)) == ("failed", prefix, 1)


async def test_what_waits_for_a_place_beyond_the_queue_is_told_to_come_again(catalog, mock):
    catalog["providers"][0] |= {"max_connections": 1, "max_waiting": 1}
    llm = HostedLLM(NoJournal(), parse_catalog(catalog))
    calls = [asyncio.create_task(llm.generate(ask("mock,n=50,itl=20", turn=f"turn_{i}"))) for i in range(2)]
    await until(lambda: llm.policies.at_most.waiting.get("mock") == 1)
    with pytest.raises(Overloaded):
        await llm.generate(ask("mock", turn="turn_9"))
    instead = await llm.generate(ask("mock", turn="turn_10", chain=("scripted",)))
    assert (instead.ending, instead.model) == ("completed", "scripted")
    assert {outcome.ending for outcome in await asyncio.gather(*calls)} == {"completed"}
    await llm.close()


async def test_scripted_needs_no_provider(llm, mock):
    outcome = await llm.generate(ask("scripted", intent="greeting"))
    assert (outcome.ending, outcome.estimated, mock.calls) == ("completed", True, 0)


async def test_cancel_closes_the_providers_stream_and_keeps_the_text(llm, mock):
    call = asyncio.create_task(llm.generate(ask("mock,n=1000,itl=10")))
    await until(lambda: llm._running and next(iter(llm._running.values()))[0]._text)
    await llm.cancel(ask())
    outcome = await call
    assert outcome.ending == "cancelled"
    assert "".join(reply_tokens("hello", 1000)).startswith(outcome.text)
    assert outcome.text
    await until(lambda: (mock.open_streams, mock.closed_early) == (0, 1), limit=1)


async def test_cancel_before_the_call_and_of_unknown_names(llm, mock):
    await llm.cancel(ask())
    call = asyncio.create_task(llm.generate(ask()))
    await asyncio.sleep(0)
    await llm.cancel(ask())
    await llm.cancel(ask())
    assert (await call).ending == "cancelled"
    assert mock.calls == 0


async def test_equal_names_join_also_after_the_end(llm, mock):
    first, second = await asyncio.gather(llm.generate(ask("mock,ttft=20")), llm.generate(ask("mock,ttft=20")))
    assert first is second is await llm.generate(ask())
    assert mock.calls == 1


async def test_join_only_never_starts_anything(llm, mock):
    assert (await llm.generate(ask(join=True))).ending == "elsewhere"
    assert (mock.calls, llm.running) == (0, 0)
    outcome = await llm.generate(ask())
    assert await llm.generate(ask(join=True)) is outcome


async def test_a_caller_that_leaves_does_not_stop_the_generation(llm, mock):
    call = asyncio.create_task(llm.generate(ask("mock,ttft=50")))
    await until(lambda: mock.open_streams == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await llm.generate(ask())).text == WHOLE
    assert mock.calls == 1


async def test_generations_are_bounded(llm, mock):
    calls = [asyncio.create_task(llm.generate(ask("mock,ttft=100", turn=f"turn_{i}"))) for i in range(4)]
    await until(lambda: llm.running == 4)
    with pytest.raises(Overloaded):
        await llm.generate(ask(turn="turn_9"))
    assert {outcome.ending for outcome in await asyncio.gather(*calls)} == {"completed"}


async def test_a_new_catalog_holds_for_new_generations(llm, catalog, mock):
    running = asyncio.create_task(llm.generate(ask("mock,ttft=50")))
    await until(lambda: mock.open_streams == 1)
    await llm.reconfigure({"providers": []})
    assert (await running).ending == "completed"
    assert (await llm.generate(ask(turn="turn_2"))).ending == "failed"
    with pytest.raises(ValueError, match="key"):
        await llm.reconfigure({"providers": [{"name": "x", "base_url": "http://x", "key": "literal"}]})
    assert (await llm.generate(ask("scripted", turn="turn_3"))).ending == "completed"


async def test_closing_abandons_what_runs(llm, mock):
    call = asyncio.create_task(llm.generate(ask("mock,n=100,itl=10")))
    await until(lambda: mock.open_streams == 1)
    await llm.close()
    with pytest.raises(Unavailable):
        await call
    with pytest.raises(Unavailable):
        await llm.generate(ask(turn="turn_2"))
    with pytest.raises(Unavailable):
        await llm.check_health()
    await until(lambda: mock.open_streams == 0)


async def test_connections_are_kept_and_used_again(llm, mock):
    for i in range(3):
        await llm.generate(ask(turn=f"turn_{i}"))
    session = llm._wires["openai"]._pool._session
    assert sum(len(connections) for connections in session.connector._conns.values()) == 1


async def test_a_generation_does_not_run_in_the_context_of_the_call_that_started_it(catalog):
    """Serve finds what a cancelled call started by its context, and would cancel the calls of local models."""
    seen = []

    class Watching:
        async def stream(self, route, request):
            seen.append(_get_serve_request_context().request_id)
            yield Piece("hi", "stop")

        async def close(self):
            pass

    _serve_request_context.set(_RequestContext(request_id="req", _internal_request_id="one"))
    llm = HostedLLM(NoJournal(), parse_catalog(catalog), wires={"openai": Watching()})
    request = GenerationRequest("t", "turn", 1, "mock", [{"role": "user", "content": "hi"}])
    assert (await llm.generate(request)).text == "hi"
    assert seen == [""]
    await llm.close()
