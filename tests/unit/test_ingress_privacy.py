"""Export and erasure through the API: who may, what comes out, and receipts that anybody can check."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
import pytest

from domain.ids import new_id
from serve_app.erasing import Erasing
from serve_app.ingress.parts import IngressSettings, Privacy
from storage.access import key_hash
from storage.data_export import PostgresDataExport
from storage.erasure import PostgresErasure
from storage.receipts import Receipts, verify
from tests.unit.ingress_world import World, world
from tests.unit.test_ingress_models import make_key

SEEDS = (b"s" * 32,)
COUNTED = ("conversation", "message", "turn", "usage")


async def no_journals(tenant: str, turns: Any) -> int:
    return 0


@dataclass
class Service:
    world: World
    url: str
    tenant: str
    owner: dict[str, str]
    admin: dict[str, str]
    other: str

    def sql(self, statement: str, *values: Any) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statement, values)

    async def post(self, path: str, headers: dict[str, str], status: int = 200) -> Any:
        answer = await self.world.http.post(f"/api/v1/{path}", headers=headers)
        assert answer.status_code == status, answer.text
        return answer

    async def lines(self, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        answer = await self.post(path, headers)
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [orjson.loads(line) for line in answer.text.splitlines()]

    async def talk(self, user: str, content: str = "hi") -> str:
        made = await self.world.http.post("/api/v1/conversations", json={"user_id": user}, headers=self.owner)
        conversation: str = made.json()["id"]
        sent = await self.world.http.post(
            f"/api/v1/conversations/{conversation}/messages", json={"content": content}, headers=self.owner
        )
        assert sent.status_code == 200, sent.text
        return conversation

    def indexed(self) -> None:
        """As an indexer that has done all."""
        self.sql("UPDATE brain.outbox SET confirmed = '{indexer}'")


@pytest.fixture
async def service(database_url: str, tenant: str) -> AsyncIterator[Service]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        receipts = Receipts(SEEDS)
        erasing = Erasing(PostgresErasure(made.pool, SEEDS), made.hosts, receipts, no_journals, wait=0.0)
        made.parts.privacy = Privacy(erasing, PostgresDataExport(made.pool))
        ten, other = new_id("ten"), new_id("ten")
        make_key(database_url, other, "owner")
        owner, admin = make_key(database_url, ten, "owner"), make_key(database_url, ten, "admin")
        yield Service(made, database_url, ten, owner, admin, other)


async def erased(service: Service, path: str, headers: dict[str, str]) -> dict[str, Any]:
    first = await service.post(path, headers, 202)
    assert first.json()["pending"]
    service.indexed()
    receipt: dict[str, Any] = (await service.post(path, headers)).json()
    return receipt


async def test_an_export_tells_all_of_one_user_and_nothing_of_another(service: Service) -> None:
    mine = await service.talk("Ann / Müller", "remember the blue door")
    theirs = await service.talk("bob", "the red door")
    lines = await service.lines("users/Ann%20%2F%20M%C3%BCller/export", service.admin)
    kinds = [line["object"] for line in lines]
    assert kinds == ["conversation", "turn", "message", "message", "usage"]
    assert [line["content"] for line in lines if line["object"] == "message"] == ["remember the blue door", "Hello"]
    assert lines[0]["id"] == mine and lines[0]["user_id"] == "Ann / Müller"
    told = orjson.dumps(lines).decode()
    assert theirs not in told and "red door" not in told and service.tenant not in told
    await service.post("users/nobody/export", service.admin, 404)


async def test_an_export_reads_page_by_page_and_leaves_nothing_out(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("storage.data_export.PAGE", 2)
    conversations = [await service.talk("ann", f"message {n}") for n in range(5)]
    for n in range(4):
        await service.world.http.post(
            f"/api/v1/conversations/{conversations[0]}/messages", json={"content": f"more {n}"}, headers=service.owner
        )
    lines = await service.lines("users/ann/export", service.owner)
    count = {
        kind: sum(line["object"] == kind for line in lines) for kind in ("conversation", "message", "turn", "usage")
    }
    assert count == {"conversation": 5, "message": 18, "turn": 9, "usage": 9}
    assert len({orjson.dumps(line) for line in lines}) == len(lines)


async def test_an_account_is_exported_without_what_signs_it_in(service: Service) -> None:
    user = new_id("usr")
    service.sql(
        "INSERT INTO brain.users (tenant_id, id, email, email_key, password_hash) VALUES (%s, %s, 'A@b.c', 'a@b.c',"
        " '$argon2id$secret')",
        service.tenant,
        user,
    )
    service.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role, user_id)"
        " VALUES (%s, 'k', 'mine', %s, 'member', %s)",
        service.tenant,
        key_hash(user),
        user,
    )
    lines = await service.lines(f"users/{user}/export", service.admin)
    assert [(line["object"], line["id"]) for line in lines] == [("user", user), ("api_key", "k")]
    assert lines[0]["email"] == "A@b.c" and "argon2" not in str(lines) and "hash" not in lines[1]


async def test_a_tenants_export_names_it_first_and_audits_itself(service: Service) -> None:
    await service.talk("ann")
    path = f"admin/tenants/{service.tenant}/export"
    lines = await service.lines(path, service.admin)
    assert lines[0]["object"] == "tenant" and lines[0]["id"] == service.tenant
    kinds = {line["object"] for line in lines}
    assert kinds >= {"tenant", "api_key", "conversation", "turn", "message", "usage", "audit"}
    operator = {"authorization": str(service.world.http.headers["authorization"])}
    again = await service.lines(path, operator)
    assert [line["action"] for line in again if line["object"] == "audit"] == ["tenant.exported"] * 2


async def test_erasing_is_the_owners_and_each_tenants_own(service: Service) -> None:
    await service.talk("ann")
    for path in ("users/ann/erase", f"admin/tenants/{service.tenant}/erase"):
        await service.post(path, service.admin, 403)
        await service.post(path, {"authorization": "Bearer nobody"}, 401)
    for way in ("export", "erase"):
        for tenant in (service.other, new_id("ten"), "ten_x", "x"):
            await service.post(f"admin/tenants/{tenant}/{way}", service.owner, 404)
        await service.post(f"users/{'x' * 256}/{way}", service.owner, 404)
        await service.post(f"users/a%00b/{way}", service.owner, 404)
    with psycopg.connect(service.url) as connection:
        there = connection.execute(
            "SELECT count(*) FROM brain.tenants WHERE id = ANY (%s)", ([service.tenant, service.other],)
        ).fetchone()
    assert there == (2,)


async def test_a_receipt_can_be_checked_with_the_published_key_alone(service: Service) -> None:
    await service.talk("ann")
    receipt = await erased(service, "users/ann/erase", service.owner)
    assert receipt["removed"]["messages"] == 2 and receipt["subject"] == {"object": "user", "id": "ann"}
    answer = await service.world.http.get("/.well-known/receipts.json", headers={"authorization": ""})
    assert answer.status_code == 200
    assert verify(receipt, answer.json()["keys"])
    assert (await service.post("users/ann/erase", service.owner)).json() == receipt
    await service.post("users/ann/export", service.owner, 404)


async def test_the_operator_erases_a_tenant_and_asks_again_after_its_end(service: Service) -> None:
    await service.talk("ann")
    operator = {"authorization": str(service.world.http.headers["authorization"])}
    receipt = await erased(service, f"admin/tenants/{service.tenant}/erase", operator)
    assert receipt["removed"]["tenants"] == 1 and receipt["tenant_id"] == service.tenant
    await service.post(f"admin/tenants/{service.tenant}/export", operator, 404)


async def test_an_owner_erases_the_own_tenant_and_is_known_no_more(service: Service) -> None:
    await service.talk("ann")
    answer = await service.post(f"admin/tenants/{service.tenant}/erase", service.owner, 202)
    assert answer.json()["removed"]["tenants"] == 1
    service.world.parts.callers.forget(None)
    await service.post("users/ann/export", service.owner, 401)


async def test_a_user_who_sees_only_its_own_reaches_nobody_else(service: Service) -> None:
    user = new_id("usr")
    service.sql(
        "INSERT INTO brain.users (tenant_id, id, email, email_key) VALUES (%s, %s, 'u@b.c', 'u@b.c')",
        service.tenant,
        user,
    )
    service.sql(
        "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'self', '{data:export,data:erase}')",
        service.tenant,
    )
    key = new_id("req")
    service.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role, user_id) VALUES (%s, 'k', 'k', %s, 'self', %s)",
        service.tenant,
        key_hash(key),
        user,
    )
    headers = {"authorization": f"Bearer {key}"}
    await service.talk("ann")
    for way in ("export", "erase"):
        await service.post(f"users/ann/{way}", headers, 404)
        await service.post(f"admin/tenants/{service.tenant}/{way}", headers, 404)
    assert (await service.lines(f"users/{user}/export", headers))[0]["id"] == user
