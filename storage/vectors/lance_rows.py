"""Records as rows of a LanceDB table, and conditions as its expressions: values never become text of a query."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from lancedb.expr import Expr, col, lit

from domain.errors import SpaceMismatch
from domain.vectors import Space, VectorRecord, Where

# Without it two writers that insert one new id at once store it twice (https://github.com/lancedb/lancedb/issues/2463).
KEY = {b"lance-schema:unenforced-primary-key": b"true", b"lance-schema:unenforced-primary-key:position": b"1"}
EMBEDDER, DIMENSIONS = b"brain.embedder", b"brain.dimensions"


def schema(space: Space) -> pa.Schema:
    """Of one tenant's table."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=KEY),
            pa.field("conversation", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), space.dimensions), nullable=False),
            pa.field("role", pa.string(), nullable=False),
            pa.field("at", pa.float64(), nullable=False),
            pa.field("user", pa.string()),
            pa.field("intent", pa.string()),
        ],
        metadata={EMBEDDER: space.embedder.encode(), DIMENSIONS: str(space.dimensions).encode()},
    )


def check_schema(space: Space, stored: pa.Schema) -> None:
    """Raise `SpaceMismatch` where the table is not of `space`."""
    kept = stored.metadata or {}
    there = Space(space.name, kept.get(EMBEDDER, b"another embedder").decode(), stored.field("vector").type.list_size)
    if (there.embedder, there.dimensions) != (space.embedder, space.dimensions):
        raise SpaceMismatch(str(space), str(there))


def to_table(space: Space, records: Sequence[VectorRecord]) -> pa.Table:
    """One row a record."""
    vectors = np.asarray([record.vector for record in records], np.float32).reshape(-1)
    columns = {
        name: pa.array([getattr(record, name) for record in records], kind)
        for name, kind in (
            ("id", pa.string()),
            ("conversation", pa.string()),
            ("role", pa.string()),
            ("at", pa.float64()),
            ("user", pa.string()),
            ("intent", pa.string()),
        )
    }
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors), space.dimensions)
    shape = schema(space)
    return pa.table([columns[name] for name in shape.names], schema=shape)


def to_records(rows: pa.Table) -> list[VectorRecord]:
    """What `to_table` was made from, as float32 keeps it."""
    return [VectorRecord(**row) for row in rows.to_pylist()]


def condition(where: Where | None) -> Expr | None:
    """None: everything."""
    if where is None:
        return None
    parts = [
        col(name) == lit(value)
        for name in ("user", "conversation", "role", "intent")
        if (value := getattr(where, name)) is not None
    ]
    if where.other_than is not None:
        parts.append(col("conversation") != lit(where.other_than))
    if where.since is not None:
        parts.append(col("at") >= lit(float(where.since)))
    if where.until is not None:
        parts.append(col("at") < lit(float(where.until)))
    whole: Expr | None = None
    for part in parts:
        whole = part if whole is None else whole & part
    return whole


def one_of(ids: Sequence[str]) -> Expr:
    """Rows with one of these ids."""
    return col("id").isin([lit(id) for id in ids])
