"""Creating a thing once, however often the request for it comes: the first answer, kept with the key."""

from typing import Any

from domain.errors import IdempotencyMismatch
from domain.tenant import Caller
from storage.postgres import Connection


async def first_answer(connection: Connection, caller: Caller, key: str, body_hash: bytes) -> Any | None:
    """What this key was answered before; None where it is new, and now taken by this transaction.

    Equal requests at the same time answer the same: the second waits for the commit of the first. Raises
    `IdempotencyMismatch`.
    """
    claimed = await connection.fetchrow(
        "INSERT INTO brain.idempotency AS i (tenant_id, caller, key, body_hash) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (tenant_id, caller, key) DO UPDATE"
        " SET body_hash = excluded.body_hash, turn_id = NULL, response = NULL, created_at = now()"
        " WHERE i.created_at < now() - interval '24 hours' RETURNING 1",
        caller.tenant,
        caller.key_id,
        key,
        body_hash,
    )
    if claimed is not None:
        return None
    row = await connection.fetchrow(
        "SELECT body_hash, response FROM brain.idempotency WHERE tenant_id = $1 AND caller = $2 AND key = $3",
        caller.tenant,
        caller.key_id,
        key,
    )
    if row is None or row["body_hash"] != body_hash or row["response"] is None:
        raise IdempotencyMismatch()
    return row["response"]


async def remember(connection: Connection, caller: Caller, key: str, response: Any) -> None:
    """Keep the answer with a key that `first_answer` took in this transaction."""
    await connection.execute(
        "UPDATE brain.idempotency SET response = $4 WHERE tenant_id = $1 AND caller = $2 AND key = $3",
        caller.tenant,
        caller.key_id,
        key,
        response,
    )
