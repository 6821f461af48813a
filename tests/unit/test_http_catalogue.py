"""Tenants' own catalogues over HTTP: how long they are believed, and what becomes of those that fail or lie."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import psycopg
import pytest
from aiohttp import web

from adapters.allow_list import NONE
from adapters.catalog.asking import LIMIT, Endpoint
from adapters.catalog.contract import WrongAnswer
from adapters.catalog.keeping import LARGEST, STALE, Entry, Keeping
from domain.circuit import State
from domain.errors import NotFound
from domain.ids import new_id
from domain.model import Breaker
from domain.product_structures import Structures
from domain.products import CatalogueUnavailable, ProductQuery
from domain.tenant import Caller
from serve_app.tenant_catalogues import TenantCatalogues, endpoints, forgets_endpoints
from storage.access import AccessChange
from storage.caches import RedisCache
from storage.catalogue_sources import PostgresCatalogueSources, seal_name
from storage.redis import open_redis
from storage.resealing import reseal
from storage.sealing import MasterKeys
from tests.conftest import free_port
from tests.doubles.catalogue import MemoryCatalogue
from tests.servers.given import open_pool
from tests.storage.catalogue_world import SHOP, make_product, tee
from tests.storage.http_catalogues import HttpCatalogues, http_catalogues

SECRET = "canary-of-a-shops-secret-5d1"
BREAKER = Breaker(failures=3, window=30, open=5)


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[HttpCatalogues]:
    async with http_catalogues(redis_url, breaker=BREAKER) as made:
        yield made


@pytest.fixture
def tenant(world: HttpCatalogues) -> str:
    made = world.tenant()
    world.shop(made).put(*SHOP)
    return made


async def titles(world: HttpCatalogues, tenant: str, text: str = "tent") -> list[str]:
    return [one.product.title for one in (await world.catalogues.search(tenant, ProductQuery(text))).items]


async def settled(world: HttpCatalogues) -> None:
    """What is fetched beside an answer has come."""
    await asyncio.gather(*world.keeping._running.values(), return_exceptions=True)


# How long an answer is believed


async def test_a_fresh_answer_is_not_asked_for_again(world: HttpCatalogues, tenant: str) -> None:
    for _ in range(3):
        assert await titles(world, tenant) == ["Tent for two"]
    assert len(world.shop(tenant).asked) == 1
    await world.catalogues.search(tenant, ProductQuery("tent", limit=3))
    assert len(world.shop(tenant).asked) == 2


async def test_without_a_word_an_answer_is_fresh_for_half_a_minute_and_max_age_is_heeded(
    world: HttpCatalogues, tenant: str
) -> None:
    shop = world.shop(tenant)
    for cache, fresh in ((None, 30), ("public, max-age=5", 5), ("max-age=999999", 3600)):
        shop.cache, limit = cache, fresh
        asked = ProductQuery("boots", limit=limit % 97 + 1)
        before = len(shop.asked)
        await world.catalogues.search(tenant, asked)
        world.clock.now += fresh
        assert (await world.catalogues.search(tenant, asked)).stale == 0
        assert len(shop.asked) == before + 1
        world.clock.now += 0.5
        assert (await world.catalogues.search(tenant, asked)).stale == fresh + 0.5
        await settled(world)
        assert len(shop.asked) == before + 2


async def test_an_old_answer_is_given_at_once_and_a_new_one_is_fetched_beside_it(
    world: HttpCatalogues, tenant: str
) -> None:
    shop = world.shop(tenant)
    await titles(world, tenant)
    shop.put(make_product("tent", "Tent for three"))
    world.clock.now += 31
    shop.go = asyncio.Event()
    old = await world.catalogues.search(tenant, ProductQuery("tent"))
    assert ([one.product.title for one in old.items], old.stale) == (["Tent for two"], 31)
    shop.go.set()
    await settled(world)
    new = await world.catalogues.search(tenant, ProductQuery("tent"))
    assert ([one.product.title for one in new.items], new.stale) == (["Tent for three"], 0)


async def test_a_dead_service_is_stood_in_for_by_older_answers_for_an_hour(world: HttpCatalogues, tenant: str) -> None:
    await titles(world, tenant)
    world.shop(tenant).dead = True
    world.clock.now += 30 + STALE
    found = await world.catalogues.search(tenant, ProductQuery("tent"))
    assert found.stale == 30 + STALE and found.items
    await settled(world)
    world.clock.now += 1
    with pytest.raises(CatalogueUnavailable):
        await titles(world, tenant)
    with pytest.raises(CatalogueUnavailable):
        await titles(world, tenant, "boots")


@pytest.mark.parametrize("cache", ["no-store", "private, no-cache"])
async def test_what_must_not_be_kept_is_not_kept(world: HttpCatalogues, tenant: str, cache: str) -> None:
    await titles(world, tenant)
    world.clock.now += 31
    world.shop(tenant).cache = cache
    await titles(world, tenant)
    await settled(world)
    world.shop(tenant).put(make_product("tent", "Tent for three"))
    assert await titles(world, tenant) == ["Tent for three"]


async def test_an_etag_that_holds_makes_an_answer_fresh_again(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    await titles(world, tenant)
    world.clock.now += 31
    await titles(world, tenant)
    await settled(world)
    assert shop.conditional == 1
    assert (await world.catalogues.search(tenant, ProductQuery("tent"))).stale == 0
    assert len(shop.asked) == 2


async def test_offers_are_never_remembered(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    for price in ("19.99", "9.99"):
        shop.put(tee("M", price=price))
        [offer] = await world.catalogues.offers(tenant, ["tee-red-m"])
        assert str(offer.price) == price
    shop.dead = True
    with pytest.raises(CatalogueUnavailable):
        await world.catalogues.offers(tenant, ["tee-red-m"])


async def test_a_product_that_is_gone_is_not_stood_in_for(world: HttpCatalogues, tenant: str) -> None:
    await world.catalogues.product(tenant, "tent")
    del world.shop(tenant).products["tent"]
    world.clock.now += 31
    await world.catalogues.product(tenant, "tent")
    await settled(world)
    with pytest.raises(NotFound):
        await world.catalogues.product(tenant, "tent")


async def test_a_flush_forgets_answers(world: HttpCatalogues, tenant: str) -> None:
    await titles(world, tenant)
    await world.cache.flush()
    await titles(world, tenant)
    assert len(world.shop(tenant).asked) == 2


async def test_another_source_does_not_answer_with_what_the_one_before_said(world: HttpCatalogues, tenant: str) -> None:
    await titles(world, tenant)
    world.shop(tenant).put(make_product("tent", "Tent for three"))
    old = world.known[tenant]
    world.known[tenant] = Endpoint(old.url, old.headers, old.timeout, "another")
    assert await titles(world, tenant) == ["Tent for three"]


async def test_an_entry_that_cannot_be_read_is_asked_for_anew(world: HttpCatalogues, tenant: str) -> None:
    await titles(world, tenant)
    for value in (b"{}", b"nonsense\nnonsense", Entry(b'{"data": 3}', None, world.clock.now, 30).packed()):
        redis = open_redis(world.redis_url)
        async for key in redis.scan_iter(match=f"brain:cache:catalogue:{tenant}:*"):
            generation = (await redis.get(key)).partition(b":")[0]
            await redis.set(key, generation + b":" + value)
        await redis.aclose()
        assert await titles(world, tenant) == ["Tent for two"]
    assert len(world.shop(tenant).asked) == 4


async def test_without_redis_the_service_is_asked_each_time(tenant: str, world: HttpCatalogues) -> None:
    away = RedisCache(open_redis(f"redis://127.0.0.1:{free_port()}", timeout=0.25), "catalogue")
    catalogues = TenantCatalogues(MemoryCatalogue(), Keeping(world.asking, away), world.known)
    for _ in range(2):
        assert (await catalogues.search(tenant, ProductQuery("tent"))).items
    assert len(world.shop(tenant).asked) == 2
    await away.close()


async def test_a_large_answer_is_given_and_not_kept(world: HttpCatalogues) -> None:
    tenant = world.tenant()
    world.shop(tenant).put(*(make_product(f"p{n}", "Cup", description="x" * 15_000) for n in range(20)))
    assert LARGEST < 20 * 15_000
    for _ in range(2):
        assert len((await world.catalogues.search(tenant, ProductQuery("cup"))).items) == 20
    assert len(world.shop(tenant).asked) == 2


# Many at once, and who gives up


async def test_the_same_question_is_asked_once_for_all_who_ask_it_at_once(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    shop.go = asyncio.Event()
    asked = [asyncio.create_task(titles(world, tenant)) for _ in range(20)]
    while not shop.asked:
        await asyncio.sleep(0.01)
    asked[0].cancel()
    shop.go.set()
    assert await asyncio.gather(*asked[1:]) == [["Tent for two"]] * 19
    assert len(shop.asked) == 1


async def test_who_gives_up_leaves_the_answer_for_the_next(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    shop.go = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await titles(world, tenant)
    shop.go.set()
    await settled(world)
    assert await titles(world, tenant) == ["Tent for two"]
    assert len(shop.asked) == 1


async def test_a_service_is_asked_so_many_questions_at_once_and_no_more(redis_url: str) -> None:
    async with http_catalogues(redis_url, at_once=3) as world:
        tenant = world.tenant()
        shop = world.shop(tenant)
        shop.put(*SHOP)
        shop.pause = 0.02
        await asyncio.gather(*(world.catalogues.search(tenant, ProductQuery("tent", limit=n)) for n in range(1, 13)))
        assert (len(shop.asked), shop.most) == (12, 3)


async def test_a_slow_service_is_given_up_in_time_and_asked_no_second_time(world: HttpCatalogues) -> None:
    tenant = world.tenant(timeout=0.2)
    world.shop(tenant).go = asyncio.Event()
    async with asyncio.timeout(10):  # it would wait for ever
        with pytest.raises(CatalogueUnavailable, match="no answer in time"):
            await titles(world, tenant)
    assert len(world.shop(tenant).asked) == 1


# Failures


async def test_a_read_that_failed_is_tried_again(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    failures = [503, 429]

    def answer(request: web.Request) -> web.Response:
        if not failures:
            shop.answers = None
            return web.json_response({"data": [{"id": "tent", "title": "At last"}]})
        return web.Response(status=failures.pop())

    shop.answers = answer
    assert await titles(world, tenant) == ["At last"]
    assert len(shop.asked) == 3


async def test_a_wait_that_is_longer_than_the_question_has_time_is_not_begun(world: HttpCatalogues) -> None:
    tenant = world.tenant(timeout=5)
    world.shop(tenant).answers, world.shop(tenant).headers = 503, {"retry-after": "60"}
    with pytest.raises(CatalogueUnavailable, match="HTTP 503"):
        await titles(world, tenant)
    assert len(world.shop(tenant).asked) == 1


@pytest.mark.parametrize(
    ("status", "words"), [(400, "refuses"), (401, "let us in"), (302, "leads elsewhere"), (404, "refuses")]
)
async def test_what_is_final_is_asked_once(world: HttpCatalogues, tenant: str, status: int, words: str) -> None:
    shop = world.shop(tenant)
    shop.answers, shop.headers = status, {"location": world.service.url(tenant) + "/structure"}
    with pytest.raises(CatalogueUnavailable, match=words):
        await titles(world, tenant)
    assert len(shop.asked) == 1
    assert world.asking.state(tenant) is State.CLOSED


async def test_a_service_that_fails_is_left_alone_until_one_question_has_got_an_answer(
    world: HttpCatalogues, tenant: str
) -> None:
    shop = world.shop(tenant)
    other = world.tenant()
    world.shop(other).put(*SHOP)
    shop.dead = True
    with pytest.raises(CatalogueUnavailable):
        await titles(world, tenant)
    assert world.asking.state(tenant) is State.OPEN
    asked = len(shop.asked)
    assert asked >= 3
    with pytest.raises(CatalogueUnavailable, match="left alone"):
        await titles(world, tenant, "boots")
    assert len(shop.asked) == asked
    assert await titles(world, other) == ["Tent for two"], "another tenant's service works"

    world.monotonic.now += 5
    with pytest.raises(CatalogueUnavailable):
        await titles(world, tenant)
    assert world.asking.state(tenant) is State.OPEN and len(shop.asked) > asked

    world.monotonic.now += 5
    shop.dead = False
    assert await titles(world, tenant) == ["Tent for two"]
    assert world.asking.state(tenant) is State.CLOSED
    assert await titles(world, tenant, "boots")


async def test_while_one_question_tries_no_other_is_asked(world: HttpCatalogues, tenant: str) -> None:
    shop = world.shop(tenant)
    shop.answers = 500
    with pytest.raises(CatalogueUnavailable):
        await titles(world, tenant)
    world.monotonic.now += 5
    shop.answers, shop.go, shop.asked = None, asyncio.Event(), []
    probe = asyncio.create_task(titles(world, tenant))
    while not shop.asked:
        await asyncio.sleep(0.01)
    with pytest.raises(CatalogueUnavailable, match="left alone"):
        await titles(world, tenant, "boots")
    shop.go.set()
    assert await probe == ["Tent for two"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>It works!</html>",
        b"[]",
        b'{"data": null}',
        b'{"data": [{"id": "a"}]}',
        b'{"data": [{"id": "a", "title": "A", "price": -1}]}',
        b'{"data": [{"id": "a", "title": "A", "price": NaN}]}',
        b'{"data": [{"id": "a", "title": "A", "price": "$5"}]}',
        b'{"data": [{"id": "a", "title": "A", "admin": true}]}',
        b'{"data": [{"id": "a", "title": "A\\u0000"}]}',
        b'{"data": [{"id": "a", "title": "A", "url": "javascript:alert(1)"}]}',
        b'{"data": [], "total": -1}',
        b'{"data": [], "more": 1}',
        b'{"data": [{"id": "a", "title": "A", "score": 1e999}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda body: str(body[:60]),
)
async def test_a_wrong_answer_is_no_answer_and_is_told_in_the_log(
    world: HttpCatalogues, tenant: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.shop(tenant).answers = body
    with caplog.at_level(logging.WARNING, "brain.catalogue"), pytest.raises(WrongAnswer):
        await titles(world, tenant)
    [line] = [one for one in caplog.records if one.name == "brain.catalogue"]
    assert tenant in line.getMessage() and len(line.getMessage()) < 400
    assert world.asking.state(tenant) is State.CLOSED


async def test_wrong_answers_to_other_questions_are_none_either(world: HttpCatalogues, tenant: str) -> None:
    world.shop(tenant).answers = b'{"id": "other", "title": "Another one"}'
    for ask in (
        world.catalogues.product(tenant, "tent"),
        world.catalogues.structure(tenant),
        world.catalogues.offers(tenant, ["tent"]),
        world.catalogues.products(tenant, ["tent"]),
        world.catalogues.recommend(tenant, "tent", 3),
    ):
        with pytest.raises(WrongAnswer):
            await ask


async def test_what_was_not_asked_for_is_left_out(world: HttpCatalogues, tenant: str) -> None:
    one, two = ({"id": id, "title": "T"} for id in ("tent", "tee-red-m"))
    world.shop(tenant).answers = json.dumps({"data": [two, one, two]}).encode()
    assert [p.id for p in await world.catalogues.products(tenant, ["tent"])] == ["tent"]
    found = await world.catalogues.search(tenant, ProductQuery("x", limit=2))
    assert [p.product.id for p in found.items] == ["tee-red-m", "tent"]
    assert [p.product.id for p in (await world.catalogues.recommend(tenant, "tent", 5)).items] == ["tee-red-m"]


async def test_an_answer_that_is_too_large_is_not_read_to_its_end(world: HttpCatalogues, tenant: str) -> None:
    world.shop(tenant).answers = b" " * (LIMIT + 1)
    with pytest.raises(WrongAnswer, match="more than"):
        await titles(world, tenant)
    assert len(world.shop(tenant).asked) == 1


# Where it may lead, and who asks


@pytest.mark.parametrize(
    "url",
    ["https://10.0.0.1", "https://169.254.169.254/latest", "https://[::1]", "http://shop.example", "https://127.1"],
)
async def test_no_private_address_is_asked(redis_url: str, url: str) -> None:
    async with http_catalogues(redis_url, allowed=NONE) as world:
        tenant = world.tenant()
        world.known[tenant] = Endpoint(url, {}, 2, "v")
        with pytest.raises(CatalogueUnavailable, match="must not be asked"):
            await titles(world, tenant)
        assert world.asking.state(tenant) is State.CLOSED


async def test_the_secret_is_sent_and_a_wrong_one_is_told(world: HttpCatalogues) -> None:
    tenant = world.tenant(headers={"x-shop-key": SECRET})
    shop = world.shop(tenant)
    shop.put(*SHOP)
    shop.header, shop.secret = "x-shop-key", SECRET
    assert await titles(world, tenant) == ["Tent for two"]
    assert SECRET not in repr(world.known[tenant])
    shop.secret = "another"
    with pytest.raises(CatalogueUnavailable, match="let us in"):
        await titles(world, tenant, "boots")


async def test_ids_that_no_product_has_are_not_asked_for(world: HttpCatalogues, tenant: str) -> None:
    for id in ("..", "a/b", "", "x" * 129, "a\nb"):
        with pytest.raises(NotFound):
            await world.catalogues.product(tenant, id)
        assert await world.catalogues.offers(tenant, [id]) == []
        assert await world.catalogues.products(tenant, [id]) == []
    assert world.shop(tenant).asked == []


# Which catalogue a tenant has


@pytest.fixture
async def stored(database_url: str) -> AsyncIterator[PostgresCatalogueSources]:
    pool = await open_pool(database_url, 4)
    yield PostgresCatalogueSources(pool)
    await pool.close()


def caller(database_url: str) -> Caller:
    made = Caller(new_id("ten"), "key_1", "admin")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'shop')", [made.tenant])
    return made


KEYS = MasterKeys.parse((b"m" * 32).hex())


async def put(stored: PostgresCatalogueSources, who: Caller, url: str, keys: MasterKeys = KEYS) -> None:
    sealed = keys.seal(SECRET.encode(), seal_name(who.tenant, url))
    await stored.put(who, url, "header", "x-key", sealed, 1500)


async def test_each_tenant_has_its_own_source_and_a_change_is_heard(
    database_url: str, stored: PostgresCatalogueSources, world: HttpCatalogues
) -> None:
    own, other = caller(database_url), caller(database_url)
    built_in = MemoryCatalogue()
    await built_in.put(own.tenant, [make_product("here", "A tent here")])
    await built_in.put(other.tenant, [make_product("there", "A tent there")])
    known = endpoints(stored, KEYS)
    told: list[str | None] = []
    heard = forgets_endpoints(known, told.append)
    catalogues = TenantCatalogues(built_in, world.keeping, known)

    async def found(who: Caller) -> list[str]:
        return [one.product.id for one in (await catalogues.search(who.tenant, ProductQuery("tent"))).items]

    assert (await found(own), await found(other)) == (["here"], ["there"])
    world.service.shops["mine"] = world.shop(world.tenant())
    world.service.shops["mine"].put(*SHOP)
    await put(stored, own, world.service.url("mine"))
    assert await found(own) == ["here"], "nobody has heard of it"
    heard([AccessChange(1, other.tenant, "tenant", other.tenant), AccessChange(2, own.tenant, "catalogue", own.tenant)])
    assert told == [own.tenant]
    assert (await found(own), await found(other)) == (["tent"], ["there"])
    assert await stored.source(other.tenant) is None
    endpoint = await known.settings(own.tenant)
    assert endpoint is not None and (dict(endpoint.headers), endpoint.timeout) == ({"x-key": SECRET}, 1.5)
    await stored.delete(own)
    await stored.delete(own)
    heard(None)
    assert told == [own.tenant, None]
    assert await found(own) == ["here"]


async def test_a_secret_opens_for_its_own_tenant_and_origin_alone(
    database_url: str, stored: PostgresCatalogueSources, world: HttpCatalogues
) -> None:
    own = caller(database_url)
    await put(stored, own, "https://a.example")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE brain.catalogue_sources SET url = 'https://b.example' WHERE tenant_id = %s", [own.tenant]
        )
    catalogues = TenantCatalogues(MemoryCatalogue(), world.keeping, endpoints(stored, KEYS))
    with pytest.raises(CatalogueUnavailable, match="cannot be opened"):
        await catalogues.structure(own.tenant)


async def test_secrets_are_sealed_anew_under_another_master_key(
    database_url: str, stored: PostgresCatalogueSources
) -> None:
    own = caller(database_url)
    await put(stored, own, "https://a.example/shop")
    both = MasterKeys.parse((b"n" * 32).hex() + "," + (b"m" * 32).hex())
    reseal(database_url, both)
    known = endpoints(stored, MasterKeys((both.keys[0],)))
    endpoint = await known.settings(own.tenant)
    assert endpoint is not None and endpoint.headers == {"x-key": SECRET}
    reseal(database_url, MasterKeys.parse((b"m" * 32).hex() + "," + (b"n" * 32).hex()))  # as others expect it


async def test_a_row_never_holds_the_secret_itself(database_url: str, stored: PostgresCatalogueSources) -> None:
    own = caller(database_url)
    await put(stored, own, "https://a.example/shop")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT to_jsonb(s)::text FROM brain.catalogue_sources s").fetchall()
        audit = connection.execute("SELECT to_jsonb(a)::text FROM brain.audit a").fetchall()
    assert rows and SECRET not in str(rows) and SECRET not in str(audit)


async def test_a_structure_of_the_catalogue_before_is_forgotten() -> None:
    catalogue = MemoryCatalogue()
    await catalogue.put("ten_1", [make_product("a", category="Tents")])
    structures = Structures(catalogue)
    assert (await structures.lexicon("ten_1")).structure.total == 1
    catalogue.held.clear()
    structures.forget("ten_1")
    assert (await structures.lexicon("ten_1")).structure.total == 0
