"""Models while the service runs: registered, changed, tested, counted, forbidden and removed, on every replica."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from domain.ids import new_id
from storage.access import key_hash
from tests.conftest import wait_until
from tests.e2e.brain import PROVIDER_KEY, Brain, mock_provider

pytestmark = pytest.mark.cluster
PROVIDER = "/api/v1/admin/models/providers/second"
MODEL = {"id": "fresh", "upstream": "mock,n=8", "price_in": 1.0, "price_out": 2.0}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("second")
    with mock_provider(folder, key=PROVIDER_KEY) as url:
        yield url


@pytest.fixture
def registered(brain: Brain, second: str) -> Iterator[dict]:
    """A second provider, registered at run time; gone afterwards."""
    models = [MODEL, {"id": "broken", "upstream": "mock,status=400"}]
    body = {"base_url": second, "key": "${MOCK_KEY}", "models": models}
    answer = brain.http.put(PROVIDER, json=body)
    assert answer.status_code == 200, answer.text
    yield body
    brain.http.delete(PROVIDER)


@pytest.fixture
def tenant(brain: Brain) -> tuple[str, httpx.Client]:
    """Another tenant, and a client with its administrator's key."""
    tenant, key = new_id("ten"), "brain_" + new_id("req")
    brain.sql("INSERT INTO brain.tenants (id, name) VALUES (%s, 'models')", tenant)
    brain.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'admin')",
        tenant,
        new_id("key"),
        key_hash(key),
    )
    return tenant, brain.client(key)


def completion(client: httpx.Client, model: str) -> httpx.Response:
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "a b c"}]}
    )


def native(client: httpx.Client, model: str) -> httpx.Response:
    conversation = client.post("/api/v1/conversations", json={}).json()["id"]
    return client.post(f"/api/v1/conversations/{conversation}/messages", json={"content": "a b c", "model": model})


def everywhere(brain: Brain, key: str, check: Callable[[httpx.Client], bool]) -> bool:
    """Whether `check` holds over several new connections, which are spread over both ingress replicas."""
    assert len(brain.replicas("Ingress")) == 2
    for _ in range(6):
        with brain.client(key) as client:
            if not check(client):
                return False
    return True


def key_of(client: httpx.Client) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


def test_a_registered_provider_answers_through_every_replica_within_seconds_and_its_removal_too(brain, second):
    body = {"base_url": second, "key": "${MOCK_KEY}", "models": [MODEL]}
    assert completion(brain.http, "fresh").status_code == 404
    began = time.monotonic()
    assert brain.http.put(PROVIDER, json=body).status_code == 200
    try:
        wait_until(
            lambda: everywhere(brain, brain.key, lambda client: completion(client, "fresh").status_code == 200),
            3,
            what="the new model in the OpenAI-compatible API",
        )
        assert time.monotonic() - began < 6
        assert everywhere(brain, brain.key, lambda client: native(client, "fresh").status_code == 200)
        listed = [one["id"] for one in brain.http.get("/v1/models").json()["data"]]
        assert "fresh" in listed
        turn = native(brain.http, "fresh").json()
        assert turn["turn"]["model"] == "fresh"
        assert httpx.get(second.removesuffix("/v1") + "/stats").json()["by_user"]["a b c"] >= 13
    finally:
        removed = brain.http.delete(PROVIDER)
    assert removed.status_code == 200
    for ask in (completion, native):

        def refused(client: httpx.Client, ask: Callable = ask) -> bool:
            answer = ask(client, "fresh")
            return answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"

        wait_until(lambda check=refused: everywhere(brain, brain.key, check), 4, what="the model's end")


def test_a_changed_price_counts_within_seconds(brain, registered):
    # A model of its own: a replica that has not read the removal yet would charge another test's calls its price.
    path = "/api/v1/admin/models/second/priced"
    cheap = {"upstream": "mock,n=8", "price_in": 1.0, "price_out": 2.0}
    assert brain.http.put(path, json=cheap).status_code == 200
    answered = wait_until(
        lambda: answer if (answer := native(brain.http, "priced")).status_code == 200 else None, 5, what="the model"
    )
    first = answered.json()["message"]
    answer = brain.http.put(path, json=cheap | {"price_in": 10.0, "price_out": 20.0})
    assert answer.status_code == 200
    assert brain.http.get("/api/v1/models/priced").json()["price_in"] in (1.0, 10.0)

    def dearer() -> bool:
        found = native(brain.http, "priced").json()["message"]
        assert found["usage"] == first["usage"]
        return found["cost_usd"] == pytest.approx(10 * first["cost_usd"])

    wait_until(dearer, 5, what="the new price")

    def told(client: httpx.Client) -> bool:
        return client.get("/api/v1/models/priced").json()["price_in"] == 10

    wait_until(lambda: everywhere(brain, brain.key, told), 5, what="the new price on every replica")


def test_a_model_that_a_tenant_may_not_use_does_not_exist_for_it(brain, registered, tenant):
    name, client = tenant
    assert completion(client, "fresh").status_code == 200
    answer = client.put(f"/api/v1/tenants/{name}/model-settings", json={"allowed": ["small"], "default": "small"})
    assert answer.status_code == 200

    def forbidden(one: httpx.Client) -> bool:
        answers = (completion(one, "fresh"), native(one, "fresh"), one.get("/api/v1/models/fresh"))
        codes = [one.json()["error"]["code"] if one.status_code == 404 else None for one in answers]
        return codes == ["model_not_found"] * 3

    wait_until(lambda: everywhere(brain, key_of(client), forbidden), 5, what="the tenant's rules")
    assert [one["id"] for one in client.get("/api/v1/models").json()["data"]] == ["small"]
    assert {one["id"] for one in client.get("/v1/models").json()["data"]} == {"auto", "small"}
    assert native(client, "auto").json()["turn"]["model"] == "small"
    assert completion(brain.http, "fresh").status_code == 200, "other tenants go on"
    for path in (PROVIDER, "/api/v1/admin/models", "/api/v1/admin/models/second/fresh"):
        assert client.get(path).status_code == 403


def test_a_test_really_calls_the_model_and_metrics_count_what_was_used(brain, registered, tenant):
    _, client = tenant
    found = client.post("/api/v1/models/fresh/test", json={"prompt": "a b c"}).json()
    assert found["ok"], found
    assert found["text"]
    assert found["total_ms"] >= found["first_token_ms"] > 0
    assert found["cost_usd"] == pytest.approx(
        (found["usage"]["prompt_tokens"] + 2 * found["usage"]["completion_tokens"]) / 1e6
    )
    broken = client.post("/api/v1/models/broken/test").json()
    assert not broken["ok"]
    assert "400" in broken["error"]["message"]
    assert native(client, "fresh").status_code == 200
    assert native(client, "broken").status_code == 502

    def counted() -> dict | None:
        used = client.get("/api/v1/models/fresh/metrics").json()
        return used if used["calls"]["unkept"] else None

    used = wait_until(counted, 5, what="the test in the ledger")
    assert (used["turns"]["completed"], used["calls"]["ok"], used["calls"]["charged"]) == (1, 1, 2)
    assert used["usage"]["completion_tokens"] == 16
    assert used["cost_usd"] == pytest.approx(2 * found["cost_usd"])
    assert used["latency_ms"]["first_token"]["p50"] > 0
    failed = client.get("/api/v1/models/broken/metrics").json()
    assert (failed["turns"]["failed"], failed["calls"]["error"]) == (1, 1)
    assert "400" in failed["errors"][0]["message"]


def test_a_preference_reaches_the_tenants_settings(brain, tenant):
    name, client = tenant
    assert client.put("/api/v1/models/small/preferences", json={"weight": -0.5}).status_code == 200
    settings = wait_until(
        lambda: client.get(f"/api/v1/tenants/{name}/model-settings").json(), 5, what="the tenant's rules"
    )
    assert settings["preferences"] == {"small": -0.5}
    wait_until(
        lambda: everywhere(
            brain, key_of(client), lambda one: one.get("/api/v1/models/small").json()["preference"] == -0.5
        ),
        5,
        what="the preference on every replica",
    )
