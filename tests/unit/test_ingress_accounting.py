"""Completions that nobody keeps: held before, settled after, whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import psycopg
import pytest

from domain.errors import CommitUnknown, Unavailable
from domain.generation import Attempt, Outcome
from domain.ids import new_id
from domain.message import Usage
from domain.model_settings import ModelSettings
from serve_app.ingress import accounting
from serve_app.ingress.parts import IngressSettings
from storage.access import key_hash
from storage.ledger import PostgresLedger
from tests.unit.ingress_world import USAGE, World, world

BODY = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}
CALLS = (
    Attempt("small", "acme", "error", "cut", 1.8e9, None, 1.0, usage=Usage(prompt_tokens=3), estimated=True),
    Attempt("small", "acme", "ok", None, 1.8e9, None, 1.0, why="retry", usage=USAGE, reply=True),
)


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


@pytest.fixture
def budget(brain: World, database_url: str):
    """Give a new tenant a budget; its client's headers and its id."""

    def make(hard: float) -> tuple[dict[str, str], str]:
        tenant, key = f"ten_{new_id('req')[4:]}", new_id("key")
        rules = ModelSettings.model_validate({"budget": {"hard_usd": hard}})
        with psycopg.connect(database_url) as connection:
            connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'b')", (tenant,))
            connection.execute(
                "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'member')",
                (tenant, key, key_hash(key)),
            )
            connection.execute(
                "INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%s, %s)",
                (tenant, psycopg.types.json.Jsonb(rules.model_dump())),
            )

        class Rules:
            async def settings(self, asked: str) -> ModelSettings:
                return rules if asked == tenant else ModelSettings()

        brain.parts.models = Rules()
        return {"authorization": f"Bearer {key}"}, tenant

    return make


def fetch(url: str, sql: str, *values):
    with psycopg.connect(url) as connection:
        return connection.execute(sql, values).fetchall()


async def entered(brain: World, url: str, turn: str | None = None):
    """The rows of the one generation that was asked for, once it is settled."""
    await brain.parts.accounts.close(10)
    sql = "SELECT call, why, basis, prompt_tokens, completion_tokens, reply, caller FROM brain.usage WHERE turn_id = %s"
    return fetch(url, sql + " ORDER BY call", turn or brain.model.asked[-1].turn_id)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_every_call_of_a_completion_is_entered(
    brain: World, database_url: str, stream: bool, ending: str
) -> None:
    brain.model.outcome = Outcome(ending, "Hello", "small", "stop", USAGE, attempts=CALLS)
    answer = await brain.http.post("/v1/chat/completions", json={**BODY, "stream": stream})
    assert answer.status_code == (502 if ending == "failed" and not stream else 200)
    rows = await entered(brain, database_url)
    assert [row[:6] for row in rows] == [
        (1, "first", "estimated", 3, 0, False),
        (2, "retry", "reported", 3, 2, True),
    ]


async def test_usage_of_an_outcome_without_calls_is_entered(brain: World, database_url: str) -> None:
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 200
    assert [row[:5] for row in await entered(brain, database_url)] == [(1, "first", "reported", 3, 2)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_pays_for_what_was_made(brain: World, database_url: str, stream: bool) -> None:
    brain.model.go = asyncio.Event()
    brain.model.outcome = Outcome("cancelled", "Hel", "small", None, USAGE, attempts=CALLS[:1])
    asking = asyncio.create_task(brain.http.post("/v1/chat/completions", json={**BODY, "stream": stream}))
    async with asyncio.timeout(10):
        while not brain.model.asked:
            await asyncio.wait((asking,), timeout=0.01)
        asking.cancel()
        await brain.model.heard_cancel.wait()
    brain.model.go.set()
    assert [row[:5] for row in await entered(brain, database_url)] == [(1, "first", "estimated", 3, 0)]


async def test_what_was_heard_of_a_dead_process_is_charged(brain: World, database_url: str, monkeypatch) -> None:
    generate, said = brain.model.generate, "lo, how are you?"

    async def dies(request):
        await generate(request)
        raise Unavailable("its process died")

    monkeypatch.setattr(brain.model, "generate", dies)
    brain.model.deltas, brain.model.go = ("Hel", said), asyncio.Event()
    async with brain.http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
        lines = [line async for line in answer.aiter_lines() if not (said in line and brain.model.go.set())]
    assert any("its process died" in line for line in lines)
    ((_, _, basis, prompt, completion, *_),) = await entered(brain, database_url)
    assert (basis, completion) == ("estimated", 5) and prompt > 0


async def test_settling_is_repeated_while_the_database_is_away(
    brain: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, tries = PostgresLedger.settle, []

    async def away(self, *args, **kwargs):
        tries.append(args)
        if len(tries) == 1:
            raise Unavailable("away")
        await settle(self, *args, **kwargs)
        if len(tries) == 2:
            raise CommitUnknown("away again, after the commit")

    monkeypatch.setattr(PostgresLedger, "settle", away)
    monkeypatch.setattr(accounting, "PAUSES", (0.0,) * 5)
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 200
    assert len(await entered(brain, database_url)) == 1 and len(tries) == 3


async def test_what_cannot_be_entered_is_logged_whole(
    brain: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(self, *args, **kwargs):
        raise Unavailable("away")

    monkeypatch.setattr(PostgresLedger, "settle", away)
    monkeypatch.setattr(accounting, "PAUSES", (0.0,))
    await brain.http.post("/v1/chat/completions", json=BODY)
    await brain.parts.accounts.close(10)
    (record,) = [one for one in caplog.records if "not entered" in one.message]
    assert record.turn_id == brain.model.asked[-1].turn_id
    assert "completion_tokens=2" in record.calls[0]


async def test_a_budget_holds_completions_that_run_at_once(brain: World, database_url: str, budget) -> None:
    headers, tenant = budget(0.0011)  # one answer of 1,000 tokens may cost 0.0004
    brain.model.go = asyncio.Event()
    asking = [
        asyncio.create_task(
            brain.http.post("/v1/chat/completions", json={**BODY, "stream": n % 2 == 0}, headers=headers)
        )
        for n in range(6)
    ]
    async with asyncio.timeout(20):
        while sum(task.done() for task in asking) < 4 or len(brain.model.asked) < 2:
            await asyncio.sleep(0.01)
    refused = [task.result() for task in asking if task.done()]
    assert [(one.status_code, one.json()["error"]["code"]) for one in refused] == [(402, "budget_exceeded")] * 4
    assert len(brain.model.asked) == 2, "a refused completion asks no model"
    brain.model.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200, 402}
    await brain.parts.accounts.close(10)
    ((spent, reserved),) = fetch(
        database_url, "SELECT spent_usd, reserved_usd FROM brain.budgets WHERE tenant_id = %s", tenant
    )
    each = (3 * Decimal("0.1") + 2 * Decimal("0.4")) / 1_000_000
    assert (spent, reserved) == (2 * each, 0)
    topics = fetch(
        database_url, "SELECT topic FROM brain.outbox WHERE tenant_id = %s AND topic LIKE 'budget%%'", tenant
    )
    assert topics == [("budget.hard_exceeded",)]
    assert (await brain.http.post("/v1/chat/completions", json=BODY, headers=headers)).status_code == 200


async def test_no_more_is_begun_than_can_wait_to_be_entered(brain: World, monkeypatch) -> None:
    monkeypatch.setattr(accounting, "MOST_OPEN", 1)
    brain.model.go = asyncio.Event()
    first = asyncio.create_task(brain.http.post("/v1/chat/completions", json=BODY))
    async with asyncio.timeout(20):
        while not brain.model.asked:
            await asyncio.sleep(0.01)
    refused = await brain.http.post("/v1/chat/completions", json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    brain.model.go.set()
    assert (await first).status_code == 200
    async with asyncio.timeout(20):
        while brain.parts.accounts._open:
            await asyncio.sleep(0.01)
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 200
