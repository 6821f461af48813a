"""Erasure with a real index, keys of providers that nobody sees, and masked text, on a running Brain."""

import json
from pathlib import Path

import httpx
import pytest

from domain.ids import new_id
from storage.access import key_hash
from storage.receipts import verify
from tests.conftest import wait_until
from tests.e2e.brain import Brain, mock_provider

pytestmark = pytest.mark.cluster
CANARY = "sk-C4nary-of-the-second-provider"


@pytest.fixture
def owner(brain: Brain) -> tuple[str, httpx.Client]:
    """Another tenant whose stored text is masked, and a client with its owner's key."""
    tenant, key = new_id("ten"), "brain_" + new_id("req")
    settings = json.dumps({"pii_masking": "mask"})
    brain.sql("INSERT INTO brain.tenants (id, name, settings) VALUES (%s, 'private', %s)", tenant, settings)
    brain.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'owner')",
        tenant,
        new_id("key"),
        key_hash(key),
    )
    return tenant, brain.client(key)


def talk(client: httpx.Client, user: str, content: str, model: str = "small") -> dict:
    conversation = client.post("/api/v1/conversations", json={"user_id": user}).json()["id"]
    answer = client.post(f"/api/v1/conversations/{conversation}/messages", json={"content": content, "model": model})
    assert answer.status_code == 200, answer.text
    return {"conversation": conversation, **answer.json()}


def test_a_tenants_user_is_exported_masked_erased_and_receipted(brain: Brain, owner: tuple[str, httpx.Client]) -> None:
    tenant, client = owner
    told = talk(client, "ann", "write to ann@acme.example about the zylophone")
    other = talk(client, "ben", "the other one")
    assert told["user_message"]["content"] == "write to ***@****.******* about the zylophone"
    lines = [json.loads(line) for line in client.post("/api/v1/users/ann/export").text.splitlines()]
    assert [line["object"] for line in lines] == ["conversation", "turn", "message", "message", "usage"]

    def indexed() -> bool:
        waiting = "SELECT count(*) FROM brain.outbox WHERE tenant_id = %s AND NOT confirmed @> '{indexer}'"
        return brain.sql(waiting, tenant) == [(0,)]

    wait_until(indexed, 60, what="the index")

    def erased() -> dict | None:
        answer = client.post("/api/v1/users/ann/erase", timeout=60)
        assert answer.status_code in (200, 202), answer.text
        return answer.json() if answer.status_code == 200 else None

    receipt = wait_until(erased, 120, what="the end of the erasure")
    removed = receipt["removed"]
    assert (removed["conversations"], removed["messages"], removed["vectors"]) == (1, 2, 2)
    assert verify(receipt, brain.http.get("/.well-known/receipts.json").json()["keys"])
    assert client.get(f"/api/v1/conversations/{told['conversation']}").status_code == 404
    assert client.get(f"/api/v1/conversations/{other['conversation']}").status_code == 200
    assert client.post("/api/v1/users/ann/export").status_code == 404

    operator = wait_until(
        lambda: (
            answer.json()
            if (answer := brain.http.post(f"/api/v1/admin/tenants/{tenant}/erase", timeout=60)).status_code == 200
            else None
        ),
        120,
        what="the end of the tenant",
    )
    assert operator["removed"]["tenants"] == 1
    assert wait_until(lambda: client.get("/api/v1/conversations").status_code == 401, 5, what="its key's end")


def test_a_provider_is_called_with_a_key_that_stands_nowhere(brain: Brain, tmp_path: Path) -> None:
    path = "/api/v1/admin/models/providers/sealed"
    models = [{"id": "sealed-model", "upstream": "mock,n=8"}]
    with mock_provider(tmp_path, key=CANARY) as url:
        put = brain.http.put(path, json={"base_url": url, "key": CANARY, "models": models})
        assert put.status_code == 200 and put.json()["sealed_key"] is True, put.text

        def answered() -> bool:
            conversation = brain.conversation()
            body = {"content": "a b", "model": "sealed-model"}
            answer = brain.http.post(f"/api/v1/conversations/{conversation}/messages", json=body)
            assert CANARY not in answer.text
            return answer.status_code == 200

        wait_until(answered, 30, what="the provider")
        assert CANARY not in brain.http.get(path).text
    brain.http.delete(path)
    looked = 0
    for file in (brain.log, *brain.data.rglob("*")):
        if file.is_file() and "postgres" not in file.parts:
            looked += 1
            assert CANARY.encode() not in file.read_bytes(), file
    assert looked > 5
