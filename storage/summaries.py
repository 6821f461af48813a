"""What stands for a conversation's early turns in its prompts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from domain.context import Fact, Remembered, Section, Summary
from domain.context.summary import EXTRACTIVE
from domain.context.told import summary_limit
from domain.conversation import ConversationKey
from domain.errors import NotFound
from domain.ledger import Charge
from domain.ports import Ownership
from storage.asides import add_aside
from storage.postgres import Pool, call, reading
from storage.retry import again

MOST_MESSAGES, MOST_CHARACTERS = 400, 1_000_000  # that are read to make a summary on demand
ON_DEMAND = 8192  # tokens of the prompt that such a summary would be for


class Summaries:
    """The owner's side."""

    _pool: Pool

    async def keep_summary(self, key: ConversationKey, owner: Ownership, summary: Summary) -> None:
        """Put `summary` in the place of the conversation's stored one. Raises `Fenced`."""
        await call(
            self._pool,
            "SELECT brain.keep_summary($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            summary.until,
            summary.seq,
            [asdict(section) for section in summary.sections],
            [asdict(fact) for fact in summary.facts],
            summary.made_by,
        )

    async def summary_made(
        self, key: ConversationKey, turn_id: str, report: dict[str, Any], calls: Sequence[Charge]
    ) -> None:
        """Add `report` to the trace of a turn as `summary`, and charge `calls`. Raises `NotFound`, charged all the
        same."""
        await add_aside(self._pool, key, turn_id, "summary", report, calls)

    async def between(self, key: ConversationKey, after: int, before: int, limit: int) -> list[Remembered]:
        """The first `limit` messages of the turns behind `after` and before `before`, no superseded ones, in order."""
        async with reading(self._pool, key.tenant) as connection:
            found = await connection.fetch(
                "SELECT turn_order, seq, role, content FROM brain.messages"
                " WHERE tenant_id = $1 AND conversation_id = $2 AND superseded_by IS NULL"
                " AND seq > $3 AND turn_order > $3 AND turn_order < $4 ORDER BY turn_order, seq LIMIT $5",
                key.tenant,
                key.conversation,
                after,
                before,
                limit,
            )
        return [Remembered.of(*row) for row in found]


@dataclass(frozen=True, slots=True)
class StoredSummary:
    """`updated_at`: the conversation's own where nothing is stored."""

    summary: Summary
    updated_at: datetime


class SummariesToRead:
    """The ingress's side."""

    _pool: Pool

    @again
    async def summary(self, tenant: str, conversation_id: str) -> tuple[StoredSummary, list[Remembered] | None]:
        """The stored summary; where there is none, also the last messages, to make it of. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT s.sections, s.facts, coalesce(s.updated_at, c.updated_at) AS updated_at"
                " FROM brain.conversations c LEFT JOIN brain.summaries s"
                " ON s.tenant_id = c.tenant_id AND s.conversation_id = c.id WHERE c.tenant_id = $1 AND c.id = $2",
                tenant,
                conversation_id,
            )
            if row is None:
                raise NotFound("there is no such conversation")
            if row["sections"] is not None:
                return StoredSummary(summary_from(row), row["updated_at"]), None
            found = await lent.fetch(
                "SELECT turn_order, seq, role, content FROM"
                " (SELECT *, sum(length(content)) OVER (ORDER BY seq DESC) AS characters FROM brain.messages"
                " WHERE tenant_id = $1 AND conversation_id = $2 AND superseded_by IS NULL ORDER BY seq DESC LIMIT $3)"
                " AS last WHERE characters <= $4 ORDER BY seq",
                tenant,
                conversation_id,
                MOST_MESSAGES,
                MOST_CHARACTERS,
            )
        return StoredSummary(Summary(), row["updated_at"]), [Remembered.of(*one) for one in found]


def on_demand(messages: Sequence[Remembered]) -> Summary:
    """A summary of all of them, for an answer."""
    return Summary().extended(messages, summary_limit(ON_DEMAND))


def summary_from(stored: Any) -> Summary:
    """The summary in `sections` and `facts` as they are stored; fields of a later version are left out."""
    sections = tuple(
        Section(one["since"], one["until"], one["seq"], one["text"], one.get("made_by", EXTRACTIVE))
        for one in stored["sections"]
    )
    return Summary(sections, tuple(Fact(one["key"], one["value"], one["order"]) for one in stored["facts"]))
