"""The ledger beside the provider's own count: an ingress, a host and a generation process in one, all else real."""

import asyncio
import os
import uuid
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
import pytest

from actors.host import ConversationHost
from benchmarks.faulty_turns import (
    CAUSES,
    PRICE_IN,
    PRICE_OUT,
    FaultyTurns,
    config,
    ledger_of,
    texts_of,
    write_tokenizer,
)
from benchmarks.mock_provider import MockProvider, serve
from benchmarks.reconcile import calls_of, settled
from benchmarks.reconciliation import (
    Asked,
    Reconciliation,
    against_counters,
    costs_by_prices,
    reconcile,
    vllm_counters,
)
from deployments.hosted_llm import HostedLLM
from domain.errors import Unavailable
from domain.model import parse_catalog
from serve_app.ingress.app import create_app
from serve_app.ingress.parts import IngressSettings, Parts
from storage.access import key_hash
from storage.catalog import CachedSettings, PostgresCatalog
from storage.conversations import PostgresConversations
from storage.follower import RedisFollower
from storage.journal import RedisJournal
from storage.leases import PostgresLeases
from storage.ledger import PostgresLedger
from storage.reader import PostgresReader
from storage.redis import open_redis
from tests.servers.given import open_pool
from tests.unit.ingress_world import KEY, SmallEmbedder, serving

TURNS = 150


class NoClassifier:
    async def classify(self, text, tenant=""):
        raise Unavailable("no classifier here")


class Generations:
    """The generation process as its callers see it: it can die, and another one takes its place."""

    def __init__(self, make) -> None:
        self._make, self.current = make, make()

    async def generate(self, request):
        return await self.current.generate(request)

    async def cancel(self, request) -> None:
        await self.current.cancel(request)

    async def die(self) -> None:
        dead, self.current = self.current, self._make()
        await dead.close()


@dataclass(frozen=True)
class Service:
    """`provider` is the root of the provider's own routes."""

    url: str
    provider: str
    llm: Generations


@pytest.fixture
async def service(database_url: str, tenant: str, redis_url: str, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(os.environ, "FAULTY_KEY", "k")
    runner, provider = await serve(MockProvider("k"))
    catalog = parse_catalog(config(provider, "${FAULTY_KEY}", write_tokenizer(tmp_path / "tokenizer.json")))
    pool = await open_pool(database_url, 10)
    journal = RedisJournal(open_redis(redis_url), claim=0.8)
    follower = RedisFollower(open_redis(redis_url), open_redis(redis_url, 10))
    llm = Generations(lambda: HostedLLM(journal, catalog, beat=0.2))

    async def resume(key):
        await host.resume(key)

    async def page() -> str:
        return ""

    stores = PostgresConversations(pool), PostgresLeases(pool)
    models = CachedSettings(PostgresCatalog(pool).settings)
    host = ConversationHost(*stores, journal, llm, NoClassifier(), catalog, resume, models=models)
    await host.start()
    parts = Parts(
        reader=PostgresReader(pool),
        hosts=host,
        follower=follower,
        llm=llm,
        embedder=SmallEmbedder(),
        classifier=NoClassifier(),
        catalog=catalog,
        metrics=page,
        ledger=PostgresLedger(pool),
        models=models,
        settings=IngressSettings(),
    )
    async with serving(create_app(parts)) as url:
        yield Service(url, provider.removesuffix("/v1"), llm)
    await host.stop()
    await llm.current.close()
    await follower.close()
    await journal.close()
    await pool.close()
    await runner.cleanup()


@pytest.mark.timeout(170)
async def test_the_ledger_agrees_with_the_provider_after_faults_of_every_kind(service, database_url):
    load = FaultyTurns(service.url, KEY, clients=16)
    await load.run(TURNS)
    found, rows = await settled(load, service.provider, database_url)
    assert load.unexpected() == []
    assert Counter(one.cause for one in load.asked).keys() == CAUSES.keys()
    assert found.wrong(0.02) == [], [line for line in found.lines if line.absolute]
    assert found.sum("reported").calls > 30 and found.sum("estimated").calls > 60
    prices = Decimal(str(PRICE_IN)), Decimal(str(PRICE_OUT))
    assert sum(row["cost_usd"] for row in rows) == costs_by_prices(rows, *prices)
    texts = await texts_of(database_url, load.asked)
    assert [
        row for row in rows if row["reply"] and row["completion_tokens"] < len(texts.get(row["turn_id"], "").split())
    ] == []
    async with httpx.AsyncClient(base_url=service.url, headers={"authorization": f"Bearer {KEY}"}) as http:
        sums = (await http.get("/api/v1/admin/usage", params={"group_by": "basis,user"})).json()["data"]
    by_basis = Counter()
    for row in rows:
        by_basis[row["basis"]] += row["prompt_tokens"] + row["completion_tokens"]
    told = Counter()
    for one in sums:
        told[one["basis"]] += one["total_tokens"]
    assert all(told[basis] >= tokens for basis, tokens in by_basis.items())


async def test_what_a_dead_generation_process_had_asked_is_charged_too(service, database_url):
    """Whoever dies counts no more: its text is known from the journal, its prompt from the host's estimate."""
    body = {"content": " ".join(f"word{n}" for n in range(40)), "model": "mock,n=60,itl=20", "stream": True}
    async with httpx.AsyncClient(base_url=service.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http:
        conversation = (await http.post("/api/v1/conversations", json={})).json()["id"]
        async with http.stream("POST", f"/api/v1/conversations/{conversation}/messages", json=body) as answer:
            seen, events = [], (line async for line in answer.aiter_lines() if line.startswith("event: "))
            async for event in events:
                seen.append(event.removeprefix("event: "))
                if seen.count("message.delta") == 5 and "turn.reset" not in seen:
                    await service.llm.die()
        turn_id = (await http.get(f"/api/v1/conversations/{conversation}/messages")).json()["data"][0]["turn_id"]
    assert seen[-1] == "turn.completed" and "turn.reset" in seen
    asked = [Asked("process died", body["content"], turn_id, "completed")]
    found = reconcile(asked, await asyncio.to_thread(calls_of, service.provider), await ledger_of(database_url, asked))
    assert not found.missing and not found.surplus and found.sum("reported").absolute == 0
    rows = {row["attempt"]: row for row in await ledger_of(database_url, asked)}
    assert (rows[1]["basis"], rows[1]["reply"], rows[2]["basis"], rows[2]["reply"]) == (
        "estimated",
        False,
        "reported",
        True,
    )
    (line,) = [line for line in found.lines if line.basis == "estimated"]
    assert abs(line.completion) <= 5, "what the client saw is known"
    assert abs(line.prompt) < line.counted, "what was asked is only reckoned by its bytes"


def make_budget(url: str, hard: float) -> tuple[str, str]:
    """A tenant with a hard budget, and its key."""
    tenant, key = f"ten_{uuid.uuid4().hex}", uuid.uuid4().hex
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'b')", (tenant,))
        connection.execute(
            "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'member')",
            (tenant, f"key_{uuid.uuid4().hex}", key_hash(key)),
        )
        settings = psycopg.types.json.Jsonb({"budget": {"hard_usd": hard}})
        connection.execute("INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%s, %s)", (tenant, settings))
    return tenant, key


async def test_turns_and_completions_at_once_do_not_overspend(service, database_url):
    tenant, key = make_budget(database_url, hard=0.01)  # an answer of 500 tokens may cost 0.003125
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as http:
        conversations = [(await http.post("/api/v1/conversations", json={})).json()["id"] for _ in range(6)]

        def turn(number: int, **fields):
            body = {"content": "hi", "model": "mock,n=16,itl=40", "parameters": {"max_tokens": 500}, **fields}
            return http.post(f"/api/v1/conversations/{conversations[number]}/messages", json=body)

        def completion():
            messages = [{"role": "user", "content": "hi"}]
            body = {"model": "mock,n=16,itl=40", "messages": messages, "max_tokens": 500}
            return http.post("/v1/chat/completions", json=body)

        answers = await asyncio.gather(*map(turn, range(6)), *(completion() for _ in range(6)))
        codes = Counter(answer.status_code for answer in answers)
        assert codes == {200: 3, 402: 9}, codes
        assert {a.json()["error"]["code"] for a in answers if a.status_code == 402} == {"budget_exceeded"}
        async with asyncio.timeout(20):
            while await held(database_url, tenant):
                await asyncio.sleep(0.05)
        assert (await turn(0)).status_code == 200, "what was held has come back"
    with psycopg.connect(database_url) as connection:
        sql = "SELECT spent_usd, (SELECT sum(cost_usd) FROM brain.usage WHERE tenant_id = %s) FROM brain.budgets"
        spent, ledger = connection.execute(sql + " WHERE tenant_id = %s", (tenant, tenant)).fetchone()
    assert spent == ledger > 0


async def held(url: str, tenant: str) -> Decimal:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute("SELECT reserved_usd FROM brain.budgets WHERE tenant_id = %s", (tenant,))
        (reserved,) = await found.fetchone()
        return reserved


def call(message="m", prompt=10, completion=5, told=True):
    return {"user": message, "prompt": prompt, "completion": completion, "told": told}


def row(turn="t", number=1, basis="reported", prompt=10, completion=5):
    return {
        "turn_id": turn,
        "attempt": 1,
        "call": number,
        "basis": basis,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
    }


def compared(calls, rows) -> Reconciliation:
    return reconcile([Asked("some", "m", "t", "completed")], calls, rows)


@pytest.mark.parametrize(
    ("calls", "rows", "words"),
    [
        ([call()], [row(completion=6)], "reported rows differ by 1"),
        ([call(), call()], [row()], "calls without a row"),
        ([call()], [row(), row(number=2)], "rows without a call"),
        ([call(told=False)], [row()], "did not tell"),
        ([call(), call()], [row(), row(number=2, basis="estimated", prompt=11)], "estimated rows differ by +6.67%"),
        ([call()], [row()], "not both"),
    ],
)
def test_a_wrong_ledger_is_found(calls, rows, words):
    assert any(words in line for line in compared(calls, rows).wrong(0.02)), compared(calls, rows).wrong(0.02)


def test_differences_that_cancel_out_are_still_found():
    found = compared([call(), call()], [row(completion=6), row(number=2, completion=4)])
    assert found.sum("reported").difference == 0 and found.sum("reported").absolute == 2
    assert any("reported rows differ" in line for line in found.wrong(0.02))


def test_vllms_counters_are_read_and_compared():
    text = (
        "# TYPE vllm:prompt_tokens_total counter\n"
        'vllm:prompt_tokens_total{engine="0",model_name="tiny"} 120.0\n'
        'vllm:prompt_tokens_total{engine="1",model_name="tiny"} 1.2e+01\n'
        'vllm:generation_tokens_total{engine="0",model_name="tiny"} 30.0\n'
        'vllm:generation_tokens_total{engine="0",model_name="other"} 7.0\n'
    )
    assert vllm_counters(text) == (132, 37) and vllm_counters(text, "tiny") == (132, 30)
    assert against_counters((100, 20), (132, 30), [row(prompt=30, completion=11)]) == (-2, 1)
