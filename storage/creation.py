"""Creating a conversation once, however often the request for it comes."""

from dataclasses import dataclass
from typing import Any

from domain.conversation import Conversation
from domain.errors import QuotaExceeded
from domain.tenant import Caller
from storage import rows
from storage.idempotency import first_answer, remember
from storage.postgres import Connection, Pool, reading
from storage.retry import again


@dataclass(frozen=True, slots=True)
class NewConversation:
    """What is asked for. `id` is made once per request, so that a second try after a lost connection finds the first.

    `key` is the caller's idempotency key and `body_hash` what it came with; without a key nothing is compared.
    `most`: conversations that the tenant may have, where there is a quota.
    """

    id: str
    user_id: str | None
    title: str | None
    metadata: dict[str, Any]
    system_prompt: str | None
    key: str | None = None
    body_hash: bytes = b""
    most: int | None = None


@again
async def create_conversation(pool: Pool, caller: Caller, new: NewConversation) -> tuple[Conversation, bool]:
    """The conversation, and whether it is the answer to an earlier request. Raises `IdempotencyMismatch`,
    `QuotaExceeded`.

    Equal requests at the same time answer the same: the second waits for the commit of the first.
    """
    async with reading(pool, caller.tenant) as connection:
        if new.key is not None:
            first = await first_answer(connection, caller, new.key, new.body_hash)
            if first is not None:
                found = Conversation.model_validate(first)
                return found, found.id != new.id
        if new.most is not None:
            await check_room(connection, caller.tenant, new.most)
        made = await _insert(connection, caller.tenant, new)
        if new.key is not None:
            await remember(connection, caller, new.key, made.model_dump(mode="json"))
        return made, False


async def check_room(connection: Connection, tenant: str, most: int) -> None:
    """Raises `QuotaExceeded` where the tenant has as many conversations as it may."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"conversations {tenant}")
    count = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM brain.conversations WHERE tenant_id = $1 LIMIT $2) c", tenant, most
    )
    if count >= most:
        raise QuotaExceeded(f"this tenant may have {most} conversations")


async def _insert(connection: Connection, tenant: str, new: NewConversation) -> Conversation:
    row = await connection.fetchrow(
        "INSERT INTO brain.conversations (tenant_id, id, user_id, title, metadata, system_prompt)"
        f" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, id) DO NOTHING RETURNING {rows.CONVERSATION}",
        tenant,
        new.id,
        new.user_id,
        new.title,
        new.metadata,
        new.system_prompt,
    )
    if row is None:  # an earlier try of this request was committed after all
        row = await connection.fetchrow(
            f"SELECT {rows.CONVERSATION} FROM brain.conversations WHERE tenant_id = $1 AND id = $2", tenant, new.id
        )
        assert row is not None
    else:
        await connection.execute(
            "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES ($1, 'conversation.created', $2)",
            tenant,
            {"conversation_id": new.id},
        )
    return rows.conversation(row)
