"""Tenants, keys, users and limits on a running Brain, whichever of its ingress replicas answers."""

import asyncio
import time

import httpx
import pytest

from tests.conftest import wait_until
from tests.e2e.brain import PASSWORD, Brain

pytestmark = pytest.mark.cluster
LIMIT = 12
ENOUGH = 8  # answers in a row, of connections of their own, to have heard both replicas


@pytest.fixture
def tenant(brain: Brain) -> str:
    return str(created(brain.http, "admin/tenants", {"name": "access"})["id"])


@pytest.fixture
def owner(brain: Brain, tenant: str) -> httpx.Client:
    return brain.client(created(brain.http, f"admin/tenants/{tenant}/keys", {"name": "o", "role": "owner"})["key"])


def created(client: httpx.Client, path: str, body: dict) -> dict:
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def told(brain: Brain, credential: str, path: str = "conversations") -> set[int]:
    """Statuses of several requests, each on a connection of its own: both replicas answer some."""
    found = set()
    for _ in range(ENOUGH):
        with brain.client(credential) as client:
            found.add(client.get(f"/api/v1/{path}").status_code)
    return found


def test_a_revoked_key_and_a_suspended_tenant_open_nothing_anywhere(
    brain: Brain, tenant: str, owner: httpx.Client
) -> None:
    made = created(owner, "keys", {"name": "bot", "role": "service", "scopes": ["conversations:read"]})
    wait_until(lambda: told(brain, made["key"]) == {200}, 10, what="the new key")
    with brain.client(made["key"]) as narrow:
        assert narrow.post("/api/v1/conversations", json={}).status_code == 403
    owner.delete(f"/api/v1/keys/{made['id']}").raise_for_status()
    wait_until(lambda: told(brain, made["key"]) == {401}, 10, what="the revocation")
    brain.http.patch(f"/api/v1/admin/tenants/{tenant}", json={"status": "suspended"}).raise_for_status()
    key = owner.headers["authorization"].removeprefix("Bearer ")
    wait_until(lambda: told(brain, key) == {401}, 10, what="the suspension")


def test_users_sign_in_see_their_own_and_sign_out_everywhere(brain: Brain, owner: httpx.Client) -> None:
    tokens = {}
    for name in ("ada", "ben"):
        body = {"email": f"{name}@example.com", "password": PASSWORD}
        created(owner, "auth/register", body)
        tokens[name] = owner.post("/api/v1/auth/login", json=body).raise_for_status().json()["access_token"]
    with brain.client(tokens["ada"]) as ada, brain.client(tokens["ben"]) as ben:
        own = created(ada, "conversations", {})["id"]
        said = ada.post(f"/api/v1/conversations/{own}/messages", json={"content": "hello", "model": "small"})
        assert said.status_code == 200, said.text
        turn = said.json()["turn"]["id"]
        for path in (f"conversations/{own}", f"turns/{turn}/trace", f"messages/{said.json()['message']['id']}"):
            assert ada.get(f"/api/v1/{path}").status_code == 200
            assert ben.get(f"/api/v1/{path}").status_code == 404
            assert owner.get(f"/api/v1/{path}").status_code == 200
        assert ben.get("/api/v1/conversations").json()["data"] == []
        headers = {"x-conversation-id": own}
        completion = {"model": "small", "messages": [{"role": "user", "content": "and mine?"}]}
        assert ben.post("/v1/chat/completions", json=completion, headers=headers).status_code == 404
        ada.post("/api/v1/auth/logout").raise_for_status()
    wait_until(lambda: told(brain, tokens["ada"]) == {401}, 10, what="the end of the sign-in")
    assert told(brain, tokens["ben"]) == {200}


async def test_a_limit_is_exact_over_both_replicas(brain: Brain, tenant: str, owner: httpx.Client) -> None:
    limits = {"limits": {"per_key": {"requests_per_minute": LIMIT}}}
    brain.http.patch(f"/api/v1/admin/tenants/{tenant}", json={"settings": limits}).raise_for_status()
    known = created(owner, "keys", {"name": "asks whether it is known", "role": "read-only"})["key"]

    def limited() -> bool:
        with brain.client(known) as client:
            return "x-ratelimit-limit-requests" in client.get("/api/v1/conversations").headers

    wait_until(lambda: all(limited() for _ in range(ENOUGH // 2)), 10, what="the limit in both replicas")
    key = created(owner, "keys", {"name": "asks", "role": "read-only"})["key"]
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=brain.url, headers=headers, timeout=20) as client:
        began = time.monotonic()
        answers = await asyncio.gather(*(client.get("/api/v1/conversations") for _ in range(3 * LIMIT)))
        took = time.monotonic() - began
    allowed = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(allowed) + len(refused) == 3 * LIMIT
    assert LIMIT <= len(allowed) <= LIMIT + 1 + took * LIMIT / 60, "what came back meanwhile, and no more"
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
