"""What every catalogue owes (`domain.products.ProductCatalogue`), over each that there is."""

from decimal import Decimal

import psycopg
import pytest

from domain.errors import NotFound
from domain.ids import new_id
from domain.products import ProductQuery
from storage.postgres import open_pool, reading
from storage.products import PostgresProducts
from tests.storage.catalogue_world import SHOP, CatalogueWorld, make_product, tee
from tests.storage.http_catalogues import http_catalogues


@pytest.fixture
def postgres_catalogue(pool, database_url):
    tenants = [new_id("ten"), new_id("ten")]
    with psycopg.connect(database_url) as connection:
        for one in tenants:
            connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'shop')", [one])
    products = PostgresProducts(pool)
    return CatalogueWorld(products, *tenants, products.put, products.delete)


@pytest.fixture
async def http_catalogue(redis_url):
    """What the service answers must not be kept here: it is asked anew each time."""
    async with http_catalogues(redis_url) as made:
        tenants = [made.tenant(), made.tenant()]
        for one in tenants:
            made.shop(one).cache = "no-store"

        async def put(tenant, products):
            made.shop(tenant).put(*products)

        async def delete(tenant, product_id):
            del made.shop(tenant).products[product_id]

        yield CatalogueWorld(made.catalogues, *tenants, put, delete)


@pytest.fixture(params=["postgres", "http"])
def world(request) -> CatalogueWorld:
    return request.getfixturevalue(f"{request.param}_catalogue")


@pytest.fixture
async def shop(world):
    await world.put(world.tenant, SHOP)
    return world


async def found(world, text="", **query):
    answer = await world.catalogue.search(world.tenant, ProductQuery(text, **query))
    return [one.product.id for one in answer.items]


async def test_a_product_comes_back_as_it_was_put(shop):
    product = await shop.catalogue.product(shop.tenant, "tee-red-m")
    assert product.model_copy(update={"updated_at": None}) == tee("M")
    assert str(product.price) == "19.99"
    assert product.in_stock is True


async def test_an_unknown_product_is_not_found(shop):
    with pytest.raises(NotFound):
        await shop.catalogue.product(shop.tenant, "tee-green-m")


async def test_products_come_in_the_order_asked_for_without_those_that_are_not_there(shop):
    products = await shop.catalogue.products(shop.tenant, ["tent", "nothing", "boots-1", "tent"])
    assert [one.id for one in products] == ["tent", "boots-1"]


async def test_a_product_put_again_is_replaced_whole(shop):
    await shop.put(shop.tenant, [make_product("tent", "Tent for three", "300.50", currency="EUR")])
    product = await shop.catalogue.product(shop.tenant, "tent")
    assert (product.title, product.price, product.category) == ("Tent for three", Decimal("300.50"), None)
    assert await found(shop, "tent two") == ["tent"]
    assert await found(shop, category="Outdoor") == []


async def test_a_deleted_product_is_found_no_more(shop):
    await shop.delete(shop.tenant, "tent")
    with pytest.raises(NotFound):
        await shop.catalogue.product(shop.tenant, "tent")
    assert await found(shop, "tent") == []
    assert await shop.catalogue.offers(shop.tenant, ["tent"]) == []


async def test_no_tenant_sees_anothers_products(shop):
    await shop.put(shop.other, [make_product("tent", "Their tent"), make_product("theirs", "Cotton T-shirt, red")])
    assert (await shop.catalogue.product(shop.tenant, "tent")).title == "Tent for two"
    with pytest.raises(NotFound):
        await shop.catalogue.product(shop.tenant, "theirs")
    assert "theirs" not in await found(shop, "cotton t-shirt")
    assert await shop.catalogue.products(shop.tenant, ["theirs"]) == []
    assert await shop.catalogue.offers(shop.tenant, ["theirs"]) == []
    assert (await shop.catalogue.structure(shop.other)).total == 2
    similar = await shop.catalogue.recommend(shop.tenant, "tee-red-m", 10)
    assert "theirs" not in [one.product.id for one in similar.items]
    await shop.delete(shop.other, "tent")
    assert (await shop.catalogue.product(shop.tenant, "tent")).title == "Tent for two"


async def test_the_title_counts_more_than_the_description(shop):
    await shop.put(shop.tenant, [make_product("laces", "Laces", description="In red, for boots.")])
    assert (await found(shop, "boots"))[-1] == "laces"
    assert (await found(shop, "laces"))[0] == "laces"


async def test_a_product_with_more_of_the_words_comes_first(shop):
    assert (await found(shop, "waterproof boots"))[0] == "boots-1"


async def test_words_are_found_by_their_stems_and_in_any_case(shop):
    assert await found(shop, "HIKE boot", limit=1) == ["boots-1"]
    assert await found(shop, "tents") == ["tent"]


async def test_a_question_in_whole_sentences_is_understood(shop):
    assert (await found(shop, "Do you have a red t-shirt in size M?"))[0] == "tee-red-m"
    assert (await found(shop, "What's your linen shirt?"))[0] == "shirt-linen"


async def test_a_question_whose_words_no_product_has_finds_nothing(shop):
    answer = await shop.catalogue.search(shop.tenant, ProductQuery("xylophone"))
    assert (answer.items, answer.total) == ((), 0)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE products; --", "& | ! ( ) :* <->", "\\", "'", "''", "!!!", "tent\0s", "t" * 3000]
)
async def test_any_text_may_be_asked(shop, text):
    await shop.catalogue.search(shop.tenant, ProductQuery(text))


async def test_scores_fall_and_the_lower_id_comes_first_of_equals(shop):
    await shop.put(shop.tenant, [make_product(f"cup-{n}", "A cup") for n in (3, 1, 2)])
    answer = await shop.catalogue.search(shop.tenant, ProductQuery("cup"))
    assert [one.product.id for one in answer.items] == ["cup-1", "cup-2", "cup-3"]
    scores = [one.score for one in (await shop.catalogue.search(shop.tenant, ProductQuery("red cotton boots"))).items]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]


async def test_one_variant_stands_for_its_group(shop):
    ids = await found(shop, "cotton t-shirt")
    assert sorted(ids)[0] == "tee-blue-m"
    assert len(ids) == 2
    assert await found(shop, "cotton t-shirt red size L", limit=1) == ["tee-red-l"]


async def test_of_a_group_asked_for_every_variant_is_found(shop):
    assert sorted(await found(shop, "t-shirt", group_id="tee-red")) == ["tee-red-l", "tee-red-m", "tee-red-s"]
    assert sorted(await found(shop, group_id="tee-red")) == ["tee-red-l", "tee-red-m", "tee-red-s"]
    assert await found(shop, group_id="tee-red", attributes={"size": ["M"]}) == ["tee-red-m"]


async def test_every_filter_given_must_hold(shop):
    red = {"colour": ["red"]}
    assert await found(shop, "shirt", attributes=red | {"size": ["M"]}, max_price=Decimal(50)) == ["tee-red-m"]
    assert await found(shop, "shirt", attributes=red, min_price=Decimal(50)) == []
    assert await found(shop, "shirt", attributes={"colour": ["white", "blue"]}) in (
        ["tee-blue-m", "shirt-linen"],
        ["shirt-linen", "tee-blue-m"],
    )
    assert await found(shop, attributes={"colour": ["RED"], "size": ["l"]}) == ["tee-red-l"]
    assert await found(shop, attributes={"colour": ["red"]}, category="Shoes") == []


async def test_prices_are_compared_exactly_and_both_ends_belong_to_the_range(shop):
    assert await found(shop, sort="price", min_price=Decimal("19.99"), max_price=Decimal("21.50")) == [
        *("tee-red-l", "tee-red-m", "tee-red-s", "tee-blue-m")
    ]
    assert await found(shop, sort="price", min_price=Decimal("19.991"), max_price=Decimal("21.499")) == []
    assert "workshop" not in await found(shop, sort="price", min_price=Decimal(0))


async def test_stock_is_filtered_by_what_is_known_of_it(shop):
    assert await found(shop, sort="title", in_stock=True, category="Shoes") == ["boots-1"]
    assert await found(shop, sort="title", in_stock=False) == ["tee-red-l", "tent", "boots-2"]
    there = await found(shop, sort="title", in_stock=True)
    assert "voucher" in there and "workshop" not in there


async def test_a_currency_is_filtered_by(shop):
    assert await found(shop, sort="title", currency="EUR") == ["tent"]


async def test_prices_sort_both_ways_without_a_price_last(shop):
    up = await found(shop, sort="price")
    assert up == [
        *("tee-red-l", "tee-red-m", "tee-red-s", "tee-blue-m", "voucher", "shirt-linen"),
        *("boots-2", "boots-1", "tent", "workshop"),
    ]
    down = await found(shop, sort="-price")
    assert down == [
        *("tent", "boots-1", "boots-2", "shirt-linen", "voucher", "tee-blue-m"),
        *("tee-red-l", "tee-red-m", "tee-red-s", "workshop"),
    ]


@pytest.mark.parametrize("sort", ["price", "-price", "title"])
async def test_pages_of_a_sorted_list_join_without_gap_or_repeat(shop, sort):
    whole = await found(shop, sort=sort, limit=100)
    assert len(whole) == len(SHOP)
    paged, after = [], None
    while page := await found(shop, sort=sort, limit=3, after=after):
        paged += page
        after = page[-1]
    assert paged == whole


async def test_a_sorted_list_holds_what_has_all_of_the_words(shop):
    assert await found(shop, "shirt cotton", sort="-price") == ["tee-blue-m", "tee-red-l", "tee-red-m", "tee-red-s"]
    assert await found(shop, "shirt cotton", sort="-price", after="tee-red-l") == ["tee-red-m", "tee-red-s"]


async def test_a_page_after_an_unknown_product_is_not_found(shop):
    with pytest.raises(NotFound):
        await found(shop, sort="price", after="nothing")


async def test_no_more_are_found_than_asked_for(shop):
    assert len(await found(shop, "boots shirt", limit=2)) == 2
    assert len(await found(shop, sort="title", limit=4)) == 4


async def test_the_structure_counts_categories_and_names_values(shop):
    structure = await shop.catalogue.structure(shop.tenant)
    assert structure.total == len(SHOP)
    assert structure.categories["Clothing > Shirts"] == 5
    assert next(iter(structure.categories)) == "Clothing > Shirts"
    assert structure.attributes["colour"][0] == "red"
    assert set(structure.attributes["colour"]) == {"red", "blue", "white", "brown", "black"}
    assert structure.currencies == ("USD", "EUR")
    assert (await shop.catalogue.structure(shop.other)).total == 0


async def test_offers_are_of_the_products_that_there_are(shop):
    offers = await shop.catalogue.offers(shop.tenant, ["voucher", "nothing", "tee-red-l"])
    assert [(one.product_id, one.price, one.currency, one.stock, one.available) for one in offers] == [
        ("voucher", Decimal("50.00"), "USD", None, True),
        ("tee-red-l", Decimal("19.99"), "USD", 0, None),
    ]
    await shop.put(shop.tenant, [tee("L", price="9.99", stock=7)])
    [offer] = await shop.catalogue.offers(shop.tenant, ["tee-red-l"])
    assert (offer.price, offer.stock) == (Decimal("9.99"), 7)


async def test_what_is_recommended_is_alike_and_never_the_product_or_its_group(shop):
    ids = [one.product.id for one in (await shop.catalogue.recommend(shop.tenant, "tee-red-m", 5)).items]
    assert ids[0] == "tee-blue-m"
    assert "shirt-linen" in ids
    assert not {"tee-red-s", "tee-red-m", "tee-red-l"} & set(ids)
    assert [one.product.id for one in (await shop.catalogue.recommend(shop.tenant, "boots-1", 1)).items] == ["boots-2"]


async def test_nothing_can_be_recommended_for_an_unknown_product(shop):
    with pytest.raises(NotFound):
        await shop.catalogue.recommend(shop.tenant, "nothing", 5)


async def test_ids_may_hold_any_printable_character(world):
    ids = ["a b", "ü-1", "50%", "x?y=z#w", "SKU:12.3", "'quoted'", "日本"]
    await world.put(world.tenant, [make_product(id, f"Thing {n}") for n, id in enumerate(ids)])
    for id in ids:
        assert (await world.catalogue.product(world.tenant, id)).id == id
    assert sorted(await found(world, sort="title")) == sorted(ids)


async def test_words_of_another_tenants_products_are_not_told(database_url, tenant):
    """The function sees all tenants' rows: it answers for the transaction's tenant alone."""
    pool = await open_pool(database_url, 2)
    try:
        async with reading(pool, tenant) as lent:
            await lent.execute("INSERT INTO brain.products (tenant_id, id, title) VALUES ($1, 'a', 'Secret')", tenant)
        for asking, found in ((tenant, 1), ("ten_other", 0)):
            async with reading(pool, asking) as lent:
                sql = "SELECT cardinality(brain.known_terms($1, brain.query_terms('secret')))"
                assert await lent.fetchval(sql, tenant) == found
    finally:
        await pool.close()
