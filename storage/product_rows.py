"""Products of the built-in catalogue as rows, and the statements that read and write them."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from domain.products import Offer, Product, ProductQuery, Structure

COLUMNS = "id, title, description, url, price, currency, stock, available, category, group_id, attributes, updated_at"
WRITTEN = (
    "title",
    "description",
    "url",
    "price",
    "currency",
    "stock",
    "available",
    "category",
    "group_id",
    "attributes",
)
"""What `put` replaces."""

MOST_VALUES = 200  # of an attribute, in a structure

BY_ID = f"SELECT {COLUMNS} FROM brain.products WHERE tenant_id = $1 AND id = ANY ($2)"
OFFERS = "SELECT id, price, currency, stock, available FROM brain.products WHERE tenant_id = $1 AND id = ANY ($2)"
FIND = """
SELECT id, group_id, score, total, lacking
    FROM brain.find_products($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
PUT = f"""
WITH given AS (
    SELECT * FROM jsonb_to_recordset($2) AS x (
        id text, title text, description text, url text, price numeric, currency text, stock integer, available boolean,
        category text, group_id text, attributes jsonb)),
written AS (
    INSERT INTO brain.products AS p (tenant_id, id, {", ".join(WRITTEN)})
        SELECT $1, id, {", ".join(WRITTEN)} FROM given ORDER BY id
        ON CONFLICT (tenant_id, id) DO UPDATE SET updated_at = clock_timestamp(),
            {", ".join(f"{name} = excluded.{name}" for name in WRITTEN)}
            WHERE ({", ".join(f"p.{name}" for name in WRITTEN)})
                IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in WRITTEN)})
        RETURNING id, title, description, category, attributes, p.xmax = 0 AS new),
marked AS (
    INSERT INTO brain.product_vectors AS v (tenant_id, product_id, text_hash)
        SELECT $1, id, md5(jsonb_build_array(title, description, category, attributes)::text)::uuid FROM written
            ORDER BY id
        ON CONFLICT (tenant_id, product_id) DO UPDATE
            SET text_hash = excluded.text_hash, version = v.version + 1, space = ''
            WHERE v.text_hash IS DISTINCT FROM excluded.text_hash)
SELECT id, new FROM written ORDER BY id
"""
DELETE = """
WITH gone AS (DELETE FROM brain.products WHERE tenant_id = $1 AND id = $2 RETURNING id),
marked AS (
    UPDATE brain.product_vectors v SET text_hash = NULL, version = v.version + 1, space = '' FROM gone
        WHERE v.tenant_id = $1 AND v.product_id = gone.id)
SELECT id FROM gone
"""
CATEGORIES = """
SELECT category AS value, count(*) AS n FROM brain.products WHERE tenant_id = $1
    GROUP BY category ORDER BY n DESC, category COLLATE "C" LIMIT 1000
"""
ATTRIBUTES = f"""
SELECT name, array_agg(value ORDER BY place) AS values FROM (
    SELECT a.key AS name, a.value,
            row_number() OVER (PARTITION BY a.key ORDER BY count(*) DESC, a.value COLLATE "C") AS place
        FROM brain.products p, jsonb_each_text(p.attributes) a WHERE p.tenant_id = $1 GROUP BY a.key, a.value) counted
    WHERE place <= {MOST_VALUES} GROUP BY name ORDER BY name COLLATE "C" LIMIT 200
"""
CURRENCIES = """
SELECT currency, count(*) AS n FROM brain.products WHERE tenant_id = $1 AND currency IS NOT NULL
    GROUP BY currency ORDER BY n DESC, currency COLLATE "C"
"""


def product(row: asyncpg.Record) -> Product:
    return Product.model_construct(None, object="product", **dict(row))


def offer(row: asyncpg.Record) -> Offer:
    return Offer(row["id"], row["price"], row["currency"], row["stock"], row["available"])


def written(one: Product) -> dict[str, Any]:
    """What `PUT` is given of a product; the price as text, for JSON's numbers are not exact."""
    values = {name: getattr(one, name) for name in ("id", *WRITTEN)}
    return {**values, "price": None if one.price is None else str(one.price)}


def arguments(
    query: ProductQuery, limit: int, *, not_group: str | None = None, ids: Sequence[str] | None = None, collapse: bool
) -> tuple[Any, ...]:
    """Of `FIND`."""
    attributes = {name: list(values) for name, values in query.attributes.items() if values}
    return (
        query.text.replace("\0", " "),
        query.category,
        attributes,
        query.min_price,
        query.max_price,
        query.currency,
        query.in_stock,
        query.group_id,
        not_group,
        None if ids is None else list(ids),
        query.sort,
        query.after,
        collapse,
        limit,
    )


def structure(
    categories: Sequence[asyncpg.Record],
    attributes: Sequence[asyncpg.Record],
    currencies: Sequence[asyncpg.Record],
) -> Structure:
    return Structure(
        sum(row["n"] for row in categories),
        {row["value"]: row["n"] for row in categories if row["value"] is not None},
        {row["name"]: tuple(row["values"]) for row in attributes},
        tuple(row["currency"] for row in currencies),
    )
