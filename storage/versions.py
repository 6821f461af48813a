"""The replies to one message: the one that stands in prompts, and those kept beside it."""

from dataclasses import dataclass

from domain.errors import NotFound
from domain.message import Message
from storage import rows
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """A reply, and the id of the one that stands in its place (None: it stands itself)."""

    message: Message
    superseded_by: str | None


class Versions:
    _pool: Pool

    @again
    async def conversation_of(self, tenant: str, message_id: str) -> str:
        """The id of the message's conversation. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            found: str = (await _named(lent, tenant, message_id))["conversation_id"]
        return found

    @again
    async def versions(self, tenant: str, message_id: str, query: PageQuery) -> Page[KeptVersion]:
        """All replies to the message, or to the one that this reply answers, in the order of `seq`."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            named = await _named(lent, tenant, message_id)
            beyond = None
            if query.after is not None:
                beyond = (await _named(lent, tenant, query.after))["seq"]
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE}, m.superseded_by FROM {rows.MESSAGES}"
                " WHERE m.tenant_id = $1 AND m.conversation_id = $2 AND m.turn_order = $3 AND m.role = 'assistant'"
                f" AND ($4::bigint IS NULL OR m.seq {compare} $4) ORDER BY m.seq {direction} LIMIT $5",
                tenant,
                named["conversation_id"],
                named["turn_order"],
                beyond,
                query.limit + 1,
            )
        return page_of([KeptVersion(rows.message(row), row["superseded_by"]) for row in found], query)


async def stand_anew(lent: Connection, tenant: str, conversation: str, order: int) -> None:
    """After a deletion: the newest whole reply to the message at `order` stands, unless one does."""
    await lent.execute(
        "WITH kept AS (SELECT id FROM brain.messages WHERE tenant_id = $1 AND conversation_id = $2"
        " AND turn_order = $3 AND role = 'assistant'"
        " ORDER BY superseded_by IS NULL DESC, status = 'completed' DESC, version = 0 DESC, seq DESC LIMIT 1)"
        " UPDATE brain.messages m SET superseded_by = nullif(kept.id, m.id) FROM kept"
        " WHERE m.tenant_id = $1 AND m.conversation_id = $2 AND m.turn_order = $3 AND m.role = 'assistant'"
        " AND m.superseded_by IS DISTINCT FROM nullif(kept.id, m.id)",
        tenant,
        conversation,
        order,
    )


async def _named(lent: Connection, tenant: str, message_id: str) -> rows.Row:
    row = await lent.fetchrow(
        "SELECT conversation_id, turn_order, seq FROM brain.messages WHERE tenant_id = $1 AND id = $2",
        tenant,
        message_id,
    )
    if row is None:
        raise NotFound("there is no such message")
    return row
