"""The catalog in Postgres: versions, entries that are changed only as they are known, and tenants' settings."""

import asyncio

import asyncpg
import psycopg
import pytest

from domain.catalog_merge import CatalogEntry
from domain.errors import NotFound, Unavailable
from domain.ids import new_id
from domain.model_settings import Budget, ModelSettings
from storage.catalog import BOUND, FRESH, CachedSettings, EntryChanged, PostgresCatalog
from storage.migrations import downgrade, upgrade
from storage.postgres import reading
from tests.conftest import make_database
from tests.servers.given import open_pool

ACME = {"base_url": "http://127.0.0.1:9/v1", "models": [{"id": "a", "price_in": 1.5}]}


@pytest.fixture
def catalog(pool, database_url):
    yield PostgresCatalog(pool)
    with psycopg.connect(database_url) as connection:  # other tests share this database
        connection.execute("DELETE FROM brain.providers")


@pytest.fixture
def name():
    return new_id("req")


def make_tenant(url):
    tenant = new_id("ten")
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'made')", (tenant,))
    return tenant


async def test_an_entry_is_written_read_removed_and_forgotten_and_each_change_raises_the_version(catalog, name):
    seen = [await catalog.versions()]
    written = await catalog.put(name, ACME, 0)
    assert await catalog.entry(name) == CatalogEntry(name, ACME, written.version)
    seen.append(await catalog.versions())
    assert seen[1].providers == written.version
    removed = await catalog.put(name, None, written.version)
    version, entries = await catalog.entries()
    assert version == removed.version
    assert [one for one in entries if one.name == name] == [CatalogEntry(name, None, removed.version)]
    seen.append(await catalog.versions())
    await catalog.reset(name, removed.version)
    assert await catalog.entry(name) is None
    seen.append(await catalog.versions())
    assert [one.providers for one in seen] == sorted({one.providers for one in seen})
    assert len({one.settings for one in seen}) == 1, "providers and settings have versions of their own"


async def test_who_does_not_know_the_entry_does_not_change_it(catalog, name):
    written = await catalog.put(name, ACME, 0)
    for expected in (0, written.version - 1, written.version + 1):
        with pytest.raises(EntryChanged):
            await catalog.put(name, {"base_url": "http://elsewhere/v1"}, expected)
    for expected in (0, written.version + 1):
        with pytest.raises(EntryChanged):
            await catalog.reset(name, expected)
    assert await catalog.entry(name) == written


async def test_of_changes_at_once_one_is_made(catalog, name):
    first = await catalog.put(name, ACME, 0)
    found = await asyncio.gather(
        *(catalog.put(name, {**ACME, "retries": n}, first.version) for n in range(5)), return_exceptions=True
    )
    made = [one for one in found if isinstance(one, CatalogEntry)]
    assert len(made) == 1
    assert await catalog.entry(name) == made[0]
    created = await asyncio.gather(*(catalog.put(name + "x", ACME, 0) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, CatalogEntry) for one in created) == 1


async def test_the_services_role_writes_providers_only_through_the_functions(catalog, pool, name):
    await catalog.put(name, ACME, 0)
    for statement in (
        "UPDATE brain.providers SET removed = true",
        "DELETE FROM brain.providers",
        "INSERT INTO brain.providers (name, entry, version) VALUES ('x', '{}', 0)",
        "TRUNCATE brain.providers",
        "UPDATE brain.catalog_version SET providers = 0",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)
    with pytest.raises(asyncpg.CheckViolationError):
        await catalog.put(name + "y", {**ACME, "key": "sk-literal"}, 0)
    with pytest.raises(asyncpg.CheckViolationError):
        await catalog.put("no such name", ACME, 0)


async def test_a_tenants_settings_are_its_own(catalog, pool, database_url):
    tenant, other = make_tenant(database_url), make_tenant(database_url)
    await catalog.change_settings(tenant, lambda _: ModelSettings(allowed=["a"], weight=2))
    assert await catalog.settings(other) == ModelSettings()
    await catalog.change_settings(other, lambda _: ModelSettings(default="b"))
    assert (await catalog.settings(tenant)).allowed == ["a"]
    async with reading(pool, other) as lent:
        assert await lent.fetch("SELECT tenant_id FROM brain.model_settings") == [(other,)]
        assert await lent.execute("UPDATE brain.model_settings SET settings = '{}' WHERE tenant_id <> $1", other) == (
            "UPDATE 0"
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with reading(pool, other) as lent:
            await lent.execute("INSERT INTO brain.model_settings (tenant_id, settings) VALUES ($1, '{}')", "ten_x")
    with pytest.raises(NotFound):
        await catalog.change_settings(new_id("ten"), lambda stored: stored)
    assert await catalog.has_tenant(other) and not await catalog.has_tenant(new_id("ten"))


async def test_settings_keep_what_was_set_and_changes_at_once_lose_nothing(catalog, database_url):
    tenant = make_tenant(database_url)
    await catalog.change_settings(tenant, lambda _: ModelSettings(budget=Budget(hard_usd=2)))

    def preferring(n):
        def change(stored):
            return stored.model_copy(update={"preferences": {**stored.preferences, f"m{n}": n / 10}})

        return change

    await asyncio.gather(*(catalog.change_settings(tenant, preferring(n)) for n in range(5)))
    found = await catalog.settings(tenant)
    assert found.preferences == {f"m{n}": n / 10 for n in range(5)}
    assert found.budget == Budget(hard_usd=2)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT settings FROM brain.model_settings WHERE tenant_id = %s", (tenant,)).fetchone()
    assert row[0]["budget"] == {"hard_usd": 2.0}
    assert "weight" not in row[0]


async def test_a_refused_change_leaves_the_settings_and_their_version(catalog, database_url):
    tenant = make_tenant(database_url)
    await catalog.change_settings(tenant, lambda _: ModelSettings(default="a"))
    before = await catalog.versions()

    def refuse(_):
        raise NotFound("not this one")

    with pytest.raises(NotFound):
        await catalog.change_settings(tenant, refuse)
    assert await catalog.settings(tenant) == ModelSettings(default="a")
    assert await catalog.versions() == before


async def test_the_versions_tell_whose_settings_changed(catalog, database_url):
    quiet, busy = make_tenant(database_url), make_tenant(database_url)
    await catalog.change_settings(quiet, lambda _: ModelSettings(default="a"))
    before = await catalog.versions()
    await catalog.change_settings(busy, lambda _: ModelSettings(default="b"))
    after = await catalog.versions()
    assert after.settings > before.settings
    assert after.providers == before.providers
    assert await catalog.changed_since(before.settings) == [busy]
    assert await catalog.changed_since(after.settings) == []


async def test_settings_that_cannot_be_read_allow_nothing(catalog, database_url):
    tenant = make_tenant(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%s, '{\"allowed\": 5}')", (tenant,)
        )
    with pytest.raises(Unavailable):
        await CachedSettings(catalog.settings).settings(tenant)


async def test_the_database_away_is_unavailable():
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/none", 1)
    catalog = PostgresCatalog(pool)
    with pytest.raises(Unavailable):
        await catalog.versions()
    with pytest.raises(Unavailable):
        await catalog.settings("ten_1")
    await pool.close()


class Source:
    """Settings as they stand somewhere, and how often they were asked for."""

    def __init__(self):
        self.settings, self.asked, self.away, self.gate = ModelSettings(default="old"), 0, False, None

    async def read(self, tenant):
        self.asked += 1
        found = self.settings
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable
        return found


async def test_settings_are_read_once_until_their_change_is_told():
    source, now = Source(), 0.0
    cache = CachedSettings(source.read, now=lambda: now)
    found = await asyncio.gather(*(cache.settings("a") for _ in range(5)))
    assert {one.default for one in found} == {"old"}
    assert source.asked == 1
    source.settings = ModelSettings(default="new")
    cache.forget(["b"])
    assert (await cache.settings("a")).default == "old"
    cache.forget(["a"])
    assert (await cache.settings("a")).default == "new"
    cache.forget()
    await cache.settings("a")
    now = FRESH
    await cache.settings("a")
    assert source.asked == 4


async def test_stale_settings_serve_while_the_database_is_away_and_unknown_ones_do_not():
    source = Source()
    cache = CachedSettings(source.read)
    await cache.settings("a")
    source.away = True
    cache.forget(["a"])
    assert (await cache.settings("a")).default == "old"
    with pytest.raises(Unavailable):
        await cache.settings("b")
    source.away, source.settings = False, ModelSettings(default="new")
    assert (await cache.settings("a")).default == "new"


async def test_what_was_read_before_a_change_was_told_is_read_again():
    source = Source()
    source.gate = asyncio.Event()
    cache = CachedSettings(source.read)
    early = asyncio.create_task(cache.settings("a"))
    while not source.asked:
        await asyncio.sleep(0)
    source.settings = ModelSettings(default="new")
    cache.forget(["a"])
    source.gate.set()
    await early
    assert (await cache.settings("a")).default == "new"


async def test_only_so_many_tenants_are_remembered():
    source = Source()
    cache = CachedSettings(source.read, bound=2)
    for tenant in ("a", "b", "a", "c", "a"):
        await cache.settings(tenant)
    assert source.asked == 3
    await cache.settings("b")
    assert source.asked == 4
    assert BOUND > 1000


def test_the_migration_goes_down_and_keeps_the_settings(postgres_folder):
    url = make_database(postgres_folder)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES ('ten_a', 'a')")
        connection.execute("INSERT INTO brain.model_settings VALUES ('ten_a', '{\"default\": \"a\"}')")
    downgrade(url, "0002")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT settings FROM brain.model_settings").fetchall() == [({"default": "a"},)]
        connection.execute("UPDATE brain.model_settings SET settings = '{}'")
    upgrade(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM brain.providers").fetchone() == (0,)
