"""Providers' keys at rest: sealed, bound to an address, shown to nobody, opened where they are used."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from benchmarks.mock_provider import MockProvider, serve
from deployments.hosted_llm import HostedLLM
from deployments.providers import ProviderFailure, resolve_key
from domain.catalog_merge import InvalidEntry
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.model import Catalog, Provider, parse_catalog
from serve_app.catalog_watch import CatalogWatch
from serve_app.cli import app
from serve_app.generating import Generating
from serve_app.ingress import logs
from serve_app.ingress.parts import IngressSettings
from serve_app.provider_keys import open_keys, sealed
from serve_app.redaction import MASK
from storage.access import API_KEYS, Access, key_hash
from storage.bootstrap import bootstrap
from storage.catalog import CachedSettings, PostgresCatalog
from storage.postgres import open_pool
from storage.resealing import reseal
from storage.sealing import MasterKeys
from tests.conftest import make_database
from tests.unit.ingress_world import CATALOG, World, world

OLD, NEW = "a1" * 32, "b2" * 32
CANARY = "sk-live-C4nary-of-a-provider"
PLAIN = "no look of a key"
URL = "http://10.0.0.9/v1"
PATH = "/api/v1/admin/models/providers/"
BODY = {"base_url": URL, "key": CANARY, "models": [{"id": "sealed-one"}]}


@pytest.fixture(scope="module")
def database_url(postgres_folder: Any) -> str:
    return make_database(postgres_folder)


@pytest.fixture(scope="module")
def tenant(database_url: str) -> str:
    return bootstrap(database_url, "k" * 40)[0]


@pytest.fixture
async def made(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as found:
        store = PostgresCatalog(found.pool)

        async def use(catalog: Catalog) -> None:
            found.parts.catalog = catalog

        found.parts.registry = CatalogWatch(store, use, CachedSettings(store.settings), every=0.05)
        found.parts.master_keys = MasterKeys.parse(OLD)
        await found.parts.registry.configure(CATALOG)
        yield found
        await found.parts.registry.close()
        await found.pool.execute("SELECT brain.reset_provider(name, version) FROM brain.providers")


def rotate() -> Any:
    return CliRunner().invoke(app, ["secrets", "rotate"])


def entry_of(url: str, name: str) -> dict[str, Any]:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT entry FROM brain.providers WHERE name = %s", (name,)).fetchone()
    assert row is not None
    entry: dict[str, Any] = row[0]
    return entry


async def test_a_key_is_kept_sealed_and_shown_to_nobody(
    made: World, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    put = await made.http.put(PATH + "hidden", json=BODY)
    assert put.status_code == 200, put.text
    answers = [put]
    for path in (PATH + "hidden", "/api/v1/admin/models", "/api/v1/models", "/api/v1/admin/models/hidden/sealed-one"):
        answers.append(await made.http.get(path))
    for answer in answers:
        assert answer.status_code == 200 and CANARY not in answer.text and "master" not in answer.text
    assert put.json()["sealed_key"] is True and put.json()["key"] is None
    stored = json.dumps(entry_of(database_url, "hidden"))
    assert CANARY not in stored and "C4nary" not in stored
    provider = Provider.model_validate({**entry_of(database_url, "hidden"), "name": "hidden"})
    assert MasterKeys.parse(OLD).open(provider.sealed_key or {}, provider.seal_name).decode() == CANARY
    assert "C4nary" not in capfd.readouterr().err


async def test_a_provider_that_is_sent_back_keeps_its_key_at_its_address_alone(made: World, database_url: str) -> None:
    await made.http.put(PATH + "hidden", json=BODY)
    told = (await made.http.get(PATH + "hidden")).json()
    before = entry_of(database_url, "hidden")["sealed_key"]
    assert (await made.http.put(PATH + "hidden", json={**told, "retries": 5})).status_code == 200
    assert entry_of(database_url, "hidden")["sealed_key"] == before
    added = await made.http.put("/api/v1/admin/models/hidden/another", json={})
    assert added.status_code == 200 and entry_of(database_url, "hidden")["sealed_key"] == before
    moved = await made.http.put(PATH + "hidden", json={**told, "base_url": "http://10.6.6.6/v1"})
    assert moved.status_code == 422 and moved.json()["error"]["param"] == "sealed_key"
    for wrong in ({"sealed_key": before}, {"sealed_key": "yes"}):
        assert (await made.http.put(PATH + "hidden", json={**BODY, "key": None, **wrong})).status_code == 422
    assert (await made.http.put(PATH + "fresh", json={"base_url": URL, "sealed_key": True})).status_code == 422
    gone = await made.http.put(PATH + "hidden", json={"base_url": URL, "models": []})
    assert gone.status_code == 200 and gone.json()["sealed_key"] is False
    assert "sealed_key" not in entry_of(database_url, "hidden")


@pytest.mark.parametrize("key", ["", "short", "with\nnewline", "zwölf-zeichen", " padded-key ", "x" * 5000])
async def test_what_can_be_no_key_is_refused_without_being_shown(made: World, key: str) -> None:
    answer = await made.http.put(PATH + "hidden", json={**BODY, "key": key})
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "key"
    assert not key or key not in answer.text


async def test_references_go_on_as_they_were_and_two_places_are_refused(made: World) -> None:
    put = await made.http.put(PATH + "named", json={**BODY, "key": "${ACME_KEY}"})
    assert put.json()["key"] == "${ACME_KEY}" and put.json()["sealed_key"] is False
    assert (await made.http.put(PATH + "two", json={**BODY, "key_file": "/run/x"})).status_code == 422


def test_a_configuration_takes_no_key_itself() -> None:
    with pytest.raises(ValueError, match=r"only as \$\{NAME\}"):
        parse_catalog({"providers": [{"name": "p", "base_url": URL, "key": CANARY}]})


def provider_with(key: str, url: str = URL, name: str = "p") -> Provider:
    shell = Provider(name=name, base_url=url)
    return shell.model_copy(update={"sealed_key": sealed(MasterKeys.parse(OLD), shell, key)})


def test_a_key_opens_for_its_provider_and_address_alone() -> None:
    keys = MasterKeys.parse(OLD)
    provider = provider_with(CANARY)
    for other, opened in (
        (provider, CANARY),
        (provider.model_copy(update={"base_url": "http://10.6.6.6/v1"}), None),
        (provider.model_copy(update={"name": "q"}), None),
    ):
        fresh = Provider.model_validate(other.model_dump())
        open_keys(keys, Catalog(providers=[fresh]))
        assert fresh.opened_key == opened
        assert CANARY not in repr(fresh) and CANARY not in str(fresh.model_dump())
        if opened is None:
            with pytest.raises(ProviderFailure, match="master key is not at hand"):
                resolve_key(fresh)
        else:
            assert resolve_key(fresh) == CANARY
    with pytest.raises(InvalidEntry, match="8 to 4096"):
        sealed(keys, provider, "x")


async def test_a_provider_is_called_with_the_key_that_was_opened(database_url: str) -> None:
    class Journal:
        async def claim(self, request: Any, writer: str) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            async def nothing(*args: Any, **kwargs: Any) -> int:
                return 1

            return nothing

    mock = MockProvider(CANARY)
    runner, url = await serve(mock)
    llm = HostedLLM(Journal(), Catalog())  # type: ignore[arg-type]
    keys = MasterKeys.parse(OLD)
    llm.opens = lambda catalog: open_keys(keys, catalog)
    provider = provider_with(CANARY, url)
    catalog = Catalog(providers=[Provider.model_validate({**provider.model_dump(), "models": [{"id": "mock*"}]})])
    await llm.reconfigure(catalog.model_dump(mode="json", by_alias=True))
    request = GenerationRequest("ten_x", new_id("turn"), 1, "mock,n=4", [{"role": "user", "content": "hi"}])
    outcome = await llm.generate(request)
    assert outcome.ending == "completed", outcome.error
    await llm.close()
    await runner.cleanup()


async def test_after_a_rotation_all_is_sealed_anew_and_the_old_key_is_not_needed(
    made: World, database_url: str, tenant: str
) -> None:
    await made.http.put(PATH + "hidden", json=BODY)
    both = MasterKeys.parse(f"{NEW},{OLD}")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO brain.signing_keys (id, algorithm, public, sealed, signs_from) VALUES"
            " ('sig_1', 'EdDSA', '{}', %s, now()), ('lost', 'EdDSA', '{}', %s, now()) ON CONFLICT DO NOTHING",
            (
                Jsonb(MasterKeys.parse(OLD).seal(b"private", "signing-key:sig_1")),
                Jsonb(MasterKeys.parse("c3" * 32).seal(b"x", "signing-key:lost")),
            ),
        )
        connection.execute("DELETE FROM brain.api_keys WHERE role <> 'operator'")
        for number, pepper in enumerate((MasterKeys.parse(OLD).derived(API_KEYS)[0], both.derived(API_KEYS)[0], b"")):
            connection.execute(
                "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'member')",
                (tenant, f"key_{number}", key_hash(f"plain {number}", pepper)),
            )
    told: list[tuple[int, int]] = []
    found = reseal(database_url, both, lambda done, total: told.append((done, total)))
    assert (found.sealed, found.already, found.lost) == (2, 0, ["the signing key lost"])
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (found.old_keys, found.bare_keys) == (1, 2), "of the bare ones one is the operator's"
    again = reseal(database_url, both)
    assert (again.sealed, again.already) == (0, 2)
    new = MasterKeys.parse(NEW)
    provider = Provider.model_validate({**entry_of(database_url, "hidden"), "name": "hidden"})
    assert new.open(provider.sealed_key or {}, provider.seal_name).decode() == CANARY
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT sealed FROM brain.signing_keys WHERE id = 'sig_1'").fetchone()
    assert row is not None and new.open(row[0], "signing-key:sig_1") == b"private"

    class Keys(Access):
        def __init__(self, pool: Any) -> None:
            self._pool, self._peppers = pool, both.derived(API_KEYS)

    pool = await open_pool(database_url, 1)
    assert await Keys(pool).find_api_key("plain 0") is not None
    await pool.close()
    assert reseal(database_url, both).old_keys == 0, "a key that is used moves by itself"


async def test_rotate_says_what_still_needs_the_old_master_key(
    made: World, database_url: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made.http.put(PATH + "hidden", json=BODY)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.signing_keys")
        connection.execute("DELETE FROM brain.api_keys WHERE id = 'key_old'")
        connection.execute(
            "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, 'key_old', 'k', %s, 'member')",
            (tenant, key_hash("old", MasterKeys.parse(OLD).derived(API_KEYS)[0])),
        )
    monkeypatch.setenv("BRAIN_DATABASE_URL", database_url)
    monkeypatch.setenv("BRAIN_MASTER_KEY", f"{NEW},{OLD}")
    first = await asyncio.to_thread(rotate)
    assert first.exit_code == 0, first.output
    assert "1 secrets sealed anew, 0 were already" in first.output and "1 API keys are still under" in first.output
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE brain.api_keys SET revoked_at = now() WHERE id = 'key_old'")
    second = await asyncio.to_thread(rotate)
    assert "0 secrets sealed anew, 1 were already" in second.output
    assert "it may be taken out of BRAIN_MASTER_KEY" in second.output
    monkeypatch.setenv("BRAIN_MASTER_KEY", "d4" * 32)
    lost = await asyncio.to_thread(rotate)
    assert lost.exit_code == 1 and "no master key at hand opens the key of provider hidden" in lost.output


async def test_the_process_that_generates_opens_what_the_ingress_sealed(
    made: World, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", database_url)
    monkeypatch.setenv("BRAIN_REDIS_URL", redis_url)
    monkeypatch.setenv("BRAIN_MASTER_KEY", f"{NEW},{OLD}")
    runner, url = await serve(MockProvider(PLAIN))
    put = await made.http.put(
        PATH + "hidden", json={**BODY, "key": PLAIN, "base_url": url, "models": [{"id": "mock*"}]}
    )
    assert put.status_code == 200, put.text
    generating = Generating("HostedLLM", {})
    await generating.start()
    try:
        await generating.configure({})
        request = GenerationRequest("ten_x", new_id("turn"), 1, "mock,n=4", [{"role": "user", "content": "hi"}])
        outcome = await generating.generate(request)
        assert isinstance(outcome, Outcome) and outcome.ending == "completed", outcome
        logs.write("canary", words=PLAIN)
        assert f'"words":"{MASK}"' in capfd.readouterr().err, (
            "what calls a provider knows its key, and shows it nowhere"
        )
    finally:
        await generating.close()
        await runner.cleanup()
