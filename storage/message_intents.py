"""Messages by what they were taken to mean."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.errors import NotFound
from domain.message import Message
from storage import rows
from storage.model_metrics import first_id
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again

_SKEW = timedelta(hours=1)  # between the clocks that make ids and the database's
_COMMON = """
SELECT t.intent->>'name' AS name, count(*) AS count,
    avg((t.intent->>'confidence')::double precision) AS mean_confidence, (sum(count(*)) OVER ())::bigint AS total
FROM brain.turns t WHERE t.tenant_id = $1 AND t.id >= $4 AND t.id < $5 AND t.created_at >= $2 AND t.created_at < $3
    AND t.intent IS NOT NULL AND t.regenerates IS NULL
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $6
"""


@dataclass(frozen=True, slots=True)
class IntentQuery:
    """Which messages: those of an intent, and with a confidence between two bounds that count too."""

    intent: str | None = None
    least: float | None = None
    most: float | None = None


class MessageIntents:
    _pool: Pool

    @again
    async def messages_by_intent(self, tenant: str, query: IntentQuery, page: PageQuery) -> Page[Message]:
        """Users' messages in the order of their turns' ids, which is that in which they came. Raises `NotFound` where
        there is no message with the id that `page.after` names."""
        wanted = page.limit + 1
        found: list[Message] = []
        async with reading(self._pool, tenant) as lent:
            after = None if page.after is None else await _turn_of(lent, tenant, page.after)
            while True:
                turns = await lent.fetch(
                    "SELECT brain.turns_by_intent($1, $2, $3, $4, $5, $6) AS id",
                    query.intent,
                    query.least,
                    query.most,
                    after,
                    page.descending,
                    wanted,
                )
                found += await _messages(lent, tenant, [row["id"] for row in turns], page.descending)
                if len(turns) < wanted or len(found) >= wanted:  # fewer than turns: messages were deleted
                    return page_of(found[:wanted], page)
                after = turns[-1]["id"]

    @again
    async def common_intents(
        self, tenant: str, since: datetime, until: datetime, limit: int
    ) -> tuple[list[dict[str, Any]], int]:
        """The most frequent intents of users' messages in a period, and how many messages had one."""
        bounds = (first_id(since - _SKEW), first_id(until + _SKEW))
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(_COMMON, tenant, since, until, *bounds, limit)
        total = found[0]["total"] if found else 0
        data = [
            {
                "name": row["name"],
                "count": row["count"],
                "share": row["count"] / total,
                "mean_confidence": row["mean_confidence"],
            }
            for row in found
        ]
        return data, total

    @again
    async def understanding(self, tenant: str, message_id: str) -> tuple[str, dict[str, Any] | None]:
        """A message's text, and what it was taken to mean as its turn's trace holds it: None where that holds nothing,
        and for what is no user's message. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT m.content, CASE WHEN m.role = 'user' THEN t.trace->'understanding' END AS found"
                f" FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = $2",
                tenant,
                message_id,
            )
        if row is None:
            raise NotFound("there is no such message")
        return row["content"], row["found"]


async def _turn_of(lent: Connection, tenant: str, message_id: str) -> str:
    turn: str | None = await lent.fetchval(
        "SELECT turn_id FROM brain.messages WHERE tenant_id = $1 AND id = $2", tenant, message_id
    )
    if turn is None:
        raise NotFound("there is no message with the id that `after` names")
    return turn


async def _messages(lent: Connection, tenant: str, turns: list[str], descending: bool) -> list[Message]:
    """What these turns answer, in order of their ids."""
    found = await lent.fetch(
        f"SELECT {rows.MESSAGE} FROM brain.turns t JOIN brain.messages m ON m.tenant_id = t.tenant_id"
        " AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq"
        f" WHERE t.tenant_id = $1 AND t.id = ANY ($2) ORDER BY t.id {'DESC' if descending else 'ASC'}",
        tenant,
        turns,
    )
    return [rows.message(row) for row in found]
