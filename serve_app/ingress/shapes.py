"""Entities as the JSON of the API: one form, byte for byte, whether they come from memory, the journal or Postgres."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from domain.context import Summary
from domain.conversation import Conversation
from domain.message import Intent, Message, Usage
from domain.turn import Turn

Json = dict[str, Any]


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def as_stored(value: Any) -> Any:
    """`value` as Postgres' jsonb gives it back: keys by length, then by bytes; whole large numbers without exponent."""
    if isinstance(value, dict):
        return {key: as_stored(value[key]) for key in sorted(value, key=lambda key: (len(key.encode()), key.encode()))}
    if isinstance(value, list):
        return [as_stored(one) for one in value]
    if isinstance(value, float):
        return int(value) if 1e16 <= abs(value) < 2**63 else value + 0.0
    return value


def conversation_json(conversation: Conversation) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "tenant_id": conversation.tenant_id,
        "user_id": conversation.user_id,
        "title": conversation.title,
        "status": conversation.status,
        "metadata": as_stored(conversation.metadata),
        "system_prompt": conversation.system_prompt,
        "message_count": conversation.message_count,
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
    }


def summary_json(conversation_id: str, told: Summary, at: datetime) -> Json:
    everything = told.until + 1
    return {
        "object": "conversation.summary",
        "conversation_id": conversation_id,
        "summary": told.text(everything),
        "facts": [{"key": fact.name, "value": fact.value, "seq": fact.order} for fact in told.facts_before(everything)],
        "up_to_seq": told.seq,
        "made_by": told.made_by,
        "updated_at": rfc3339(at),
    }


def message_json(message: Message) -> Json:
    return {
        "id": message.id,
        "object": "message",
        "conversation_id": message.conversation_id,
        "turn_id": message.turn_id,
        "seq": message.seq,
        "role": message.role,
        "content": message.content,
        "status": message.status,
        "model": message.model,
        "intent": intent_json(message.intent),
        "usage": usage_json(message.usage),
        "cost_usd": None if message.cost_usd is None else float(message.cost_usd),
        "citations": as_stored(message.citations) if message.citations else [],
        "metadata": as_stored(message.metadata) if message.metadata else {},
        "created_at": rfc3339(message.created_at),
    }


def turn_json(turn: Turn) -> Json:
    return {
        "id": turn.id,
        "object": "turn",
        "conversation_id": turn.conversation_id,
        "status": turn.status.value,
        "attempt": turn.attempt,
        "model": turn.model,
        "error": None if turn.error is None else error_json(turn.error),
        "usage": usage_json(turn.usage),
        "created_at": rfc3339(turn.created_at),
        "completed_at": None if turn.completed_at is None else rfc3339(turn.completed_at),
    }


def usage_json(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def intent_json(intent: Intent | None) -> Json | None:
    if intent is None:
        return None
    return {"name": intent.name, "confidence": float(intent.confidence), "parameters": as_stored(intent.parameters)}


def error_json(error: Mapping[str, Any]) -> Json:
    """The four fields of every error; a stored error may be the object itself or stand under `error`."""
    inner = error.get("error", error)
    if not isinstance(inner, Mapping):
        inner = error
    return {
        "message": str(inner.get("message") or "the turn failed"),
        "type": inner.get("type") or "provider_error",
        "param": inner.get("param"),
        "code": inner.get("code"),
    }


_SHAPES: dict[str, Any] = {
    "message": lambda value: message_json(Message.model_validate(value)),
    "user_message": lambda value: message_json(Message.model_validate(value)),
    "intent": lambda value: intent_json(Intent.model_validate(value)),
    "usage": lambda value: usage_json(Usage.model_validate(value)),
    "error": error_json,
    "cost_usd": float,
}


def event_json(data: Json) -> Json:
    """What an event carries, each known field in its one form; `data` may hold plain JSON of the journal."""
    return {
        name: _SHAPES[name](value) if name in _SHAPES and value is not None else value for name, value in data.items()
    }
