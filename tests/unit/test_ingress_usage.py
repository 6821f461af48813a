"""`GET /admin/usage`: sums of the ledger over tenants, for the operator alone."""

import csv
import io
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import psycopg
import pytest

from domain.ledger import Charge
from domain.message import Usage
from serve_app.ingress import usage as route
from serve_app.ingress.parts import IngressSettings
from storage.access import key_hash
from tests.unit.ingress_world import World, world

PATH = "/api/v1/admin/usage"
TODAY = datetime.now(UTC).date()


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


def charge(number: int, model: str, cost: str | None, **fields) -> Charge:
    usage = Usage(prompt_tokens=100, cached_tokens=40, completion_tokens=7)
    return Charge(number, model, "acme", fields.pop("why", "first"), usage, cost and Decimal(cost), **fields)


@pytest.fixture
async def spent(brain: World) -> list[str]:
    """Two tenants: the first with three calls of two turns, one of them estimated; the second with one."""
    tenants = [f"ten_{uuid.uuid4().hex}" for _ in range(2)]
    calls = [charge(1, "small", "0.1"), charge(2, "=large()", "0.2000000001", estimated=True, why="retry")]
    await brain.parts.ledger.settle(tenants[0], "turn_1", calls, user_id='+ada, "x"')
    await brain.parts.ledger.settle(tenants[0], "turn_2", [charge(1, "small", None)])
    await brain.parts.ledger.settle(tenants[1], "turn_3", [charge(1, "small", "5")])
    return tenants


async def ask(brain: World, tenant: str, **query):
    answer = await brain.http.get(PATH, params={"tenant_id": tenant, **query})
    assert answer.status_code == 200, answer.text
    return answer


async def test_the_ledger_is_summed_by_what_is_asked(brain: World, spent: list[str]) -> None:
    found = (await ask(brain, spent[0])).json()
    assert found["group_by"] == ["day", "model"]
    assert [(one["day"], one["model"], one["calls"]) for one in found["data"]] == [
        (str(TODAY), "=large()", 1),
        (str(TODAY), "small", 2),
    ]
    assert found["totals"] == {
        "calls": 3,
        "turns": 2,
        "prompt_tokens": 300,
        "cached_tokens": 120,
        "completion_tokens": 21,
        "total_tokens": 321,
        "cost_usd": 0.3000000001,
        "unpriced_calls": 1,
    }
    by_basis = (await ask(brain, spent[0], group_by="basis,why,user")).json()["data"]
    assert [(one["user_id"], one["basis"], one["why"], one["calls"]) for one in by_basis] == [
        ('+ada, "x"', "estimated", "retry", 1),
        ('+ada, "x"', "reported", "first", 1),
        (None, "reported", "first", 1),
    ]
    everyone = (await brain.http.get(PATH, params={"group_by": "tenant"})).json()["data"]
    assert {one["tenant_id"]: one["cost_usd"] for one in everyone if one["tenant_id"] in spent} == {
        spent[0]: 0.3000000001,
        spent[1]: 5,
    }


async def test_cost_keeps_every_digit(brain: World) -> None:
    tenant, cost = f"ten_{uuid.uuid4().hex}", "1234567.000000000001"
    await brain.parts.ledger.settle(tenant, "turn_1", [charge(1, "small", cost)])
    assert f'"cost_usd":{cost}'.encode() in (await ask(brain, tenant)).content


async def test_days_and_times_bound_it(brain: World, spent: list[str]) -> None:
    now = datetime.now(UTC)
    for query, calls in (
        ({"from": str(TODAY), "to": str(TODAY)}, 3),
        ({"from": str(TODAY - timedelta(days=9)), "to": str(TODAY - timedelta(days=1))}, 0),
        ({"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}, 3),
        ({"from": "2000-01-01", "to": (now - timedelta(hours=1)).isoformat()}, 0),
        ({"from": "2000-01-01T00:00:00-05:00", "to": "9999-12-30"}, 3),
    ):
        assert (await ask(brain, spent[0], **query)).json()["totals"]["calls"] == calls, query


async def test_csv_is_safe_to_open(brain: World, spent: list[str]) -> None:
    answer = await brain.http.get(
        PATH, params={"tenant_id": spent[0], "group_by": "user,model"}, headers={"accept": "text/csv"}
    )
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="usage-')
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(one["user_id"], one["model"], one["cost_usd"], one["total_tokens"]) for one in lines] == [
        ('\'+ada, "x"', "'=large()", "0.2000000001", "107"),
        ('\'+ada, "x"', "small", "0.1", "107"),
        ("", "small", "0", "107"),
    ]
    same = await ask(brain, spent[0], group_by="user,model", format="csv")
    assert same.content == answer.content


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": "9999-12-31"}, "to"),
        ({"from": "2026-01-01T00:00:00"}, "from"),
        ({"from": "9999-12-31T23:59:59Z"}, "from"),
        ({"from": "2026-01-02", "to": "2026-01-01"}, "from"),
        ({"group_by": "model,password"}, "group_by"),
        ({"format": "xlsx"}, "format"),
        ({"tenant_id": "a\0"}, "tenant_id"),
    ],
)
async def test_what_cannot_be_answered_is_named(brain: World, query: dict[str, str], param: str) -> None:
    answer = await brain.http.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


async def test_too_many_groups_are_refused(brain: World, spent: list[str], monkeypatch) -> None:
    monkeypatch.setattr(route, "MOST", 1)
    answer = await brain.http.get(PATH, params={"tenant_id": spent[0]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "group_by")


async def test_it_is_the_operators_alone(brain: World, database_url: str) -> None:
    assert (await brain.http.get(PATH, headers={"authorization": "Bearer x"})).status_code == 401
    with psycopg.connect(database_url) as connection:
        for role in ("admin", "member"):
            key = uuid.uuid4().hex
            connection.execute(
                "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, %s)",
                (brain.tenant, f"key_{uuid.uuid4().hex}", key_hash(key), role),
            )
            connection.commit()
            answer = await brain.http.get(PATH, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 403


async def test_an_empty_ledger_answers_zeros(brain: World) -> None:
    found = orjson.loads((await ask(brain, "ten_nobody")).content)
    assert found["data"] == [] and found["totals"]["calls"] == 0 and found["totals"]["cost_usd"] == 0
