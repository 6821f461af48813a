"""Messages by what they were taken to mean."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.errors import NotFound
from domain.message import Message
from storage import rows
from storage.model_metrics import first_id
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Pool, reading
from storage.retry import again

_SKEW = timedelta(hours=1)  # between the clocks that make ids and the database's
_CONFIDENCE = "((t.intent->>'confidence')::double precision)"
_COMMON = f"""
SELECT t.intent->>'name' AS name, count(*) AS count, avg({_CONFIDENCE}) AS mean_confidence,
    (sum(count(*)) OVER ())::bigint AS total
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
        compare, direction = ("<", "DESC") if page.descending else (">", "ASC")
        conditions, args = [], [tenant, page.limit + 1]
        for value, test in (
            (query.intent, "t.intent->>'name' ="),
            (query.least, f"{_CONFIDENCE} >="),
            (query.most, f"{_CONFIDENCE} <="),
        ):
            if value is not None:
                args.append(value)
                conditions.append(f" AND {test} ${len(args)}")
        async with reading(self._pool, tenant) as lent:
            if page.after is not None:
                turn = await lent.fetchval(
                    "SELECT turn_id FROM brain.messages WHERE tenant_id = $1 AND id = $2", tenant, page.after
                )
                if turn is None:
                    raise NotFound("there is no message with the id that `after` names")
                args.append(turn)
                conditions.append(f" AND t.id {compare} ${len(args)}")
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM brain.turns t JOIN brain.messages m ON m.tenant_id = t.tenant_id"
                " AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq"
                " WHERE t.tenant_id = $1 AND t.intent IS NOT NULL AND t.regenerates IS NULL"
                f"{''.join(conditions)} ORDER BY t.id {direction} LIMIT $2",
                *args,
            )
        return page_of([rows.message(row) for row in found], page)

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
