"""Rows of Postgres as the domain's entities."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from domain.conversation import Conversation
from domain.ledger import Charge, Version
from domain.message import Intent, Message, Usage
from domain.turn import Turn, TurnStatus

Row = Mapping[str, Any] | asyncpg.Record

CONVERSATION = "id, tenant_id, user_id, title, status, metadata, system_prompt, message_count, created_at, updated_at"
MESSAGE = (
    "m.id, m.conversation_id, m.turn_id, m.seq, m.role, m.content, m.status, m.model, m.usage, m.cost_usd,"
    " m.citations, m.metadata, m.created_at, t.intent"
)
MESSAGES = "brain.messages m LEFT JOIN brain.turns t ON t.tenant_id = m.tenant_id AND t.id = m.turn_id"
OF_TURN = (  # $1 tenant, $2 turn, $3 conversation, $4 the turn's `user_seq`: the message it answers, and its reply
    "m.tenant_id = $1 AND m.conversation_id = $3"
    " AND (m.seq = $4 OR m.turn_id = $2 AND m.role = 'assistant' AND m.version = 0)"
)
TURN = "id, conversation_id, status, attempt, model, error, usage, created_at, completed_at"


def conversation(row: Row) -> Conversation:
    return Conversation.model_validate({name: row[name] for name in CONVERSATION.split(", ")})


def message(row: Row) -> Message:
    return Message.model_validate({**row, "object": "message"})


def turn(row: Row) -> Turn:
    return Turn(
        id=row["id"],
        conversation_id=row["conversation_id"],
        status=TurnStatus(row["status"]),
        attempt=row["attempt"],
        model=row["model"],
        error=row["error"],
        usage=row["usage"] and Usage.model_validate(row["usage"]),
        created_at=row["created_at"],
        completed_at=row["completed_at"],
    )


def intent(value: dict[str, Any] | None) -> Intent | None:
    return None if value is None else Intent.model_validate(value)


def calls(charges: Sequence[Charge]) -> list[dict[str, Any]] | None:
    """Charges as `brain.charge` takes them; costs as text, which is exact."""
    return [
        {
            "call": charge.call,
            "model": charge.model,
            "provider": charge.provider,
            "why": charge.why,
            "prompt_tokens": charge.usage.prompt_tokens,
            "cached_tokens": charge.usage.cached_tokens,
            "completion_tokens": charge.usage.completion_tokens,
            "cost_usd": None if charge.cost_usd is None else format(charge.cost_usd, "f"),
            "estimated": charge.estimated,
            "reply": charge.reply,
        }
        for charge in charges
    ] or None


def versions(kept: Sequence[Version]) -> list[dict[str, Any]] | None:
    return [
        {
            "message_id": version.message_id,
            "content": version.content,
            "model": version.model,
            "usage": version.usage and version.usage.model_dump(),
            "cost_usd": version.cost_usd,
        }
        for version in kept
    ] or None
