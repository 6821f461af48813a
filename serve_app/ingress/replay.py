"""The events of a turn, rebuilt from what Postgres keeps of it."""

from dataclasses import replace
from typing import Any

from domain import events
from domain.events import Event, Layout, Position
from domain.message import Message
from domain.turn import TurnStatus
from serve_app.ingress.shapes import error_json, message_json, usage_json
from storage.reader import StoredTurn

_TERMINAL = {
    TurnStatus.COMPLETED: events.COMPLETED,
    TurnStatus.FAILED: events.FAILED,
    TurnStatus.CANCELLED: events.CANCELLED,
}


def accepted(turn_id: str, user_message: Message | None, resumable: bool = True) -> Event:
    """The first event of every turn; its id is `…/1/1` whatever attempt is the current one."""
    data: dict[str, Any] = {"user_message": None}
    if user_message is not None:
        data["user_message"] = {**message_json(user_message), "intent": None}  # not yet known at that time
    if not resumable:
        data["resumable"] = False
    return Event(turn_id, 1, 1, events.ACCEPTED, data)


def events_after(stored: StoredTurn, position: Position) -> list[Event]:
    """What is left of an ended turn's stream for a reader at `position`.

    A reader of an older attempt goes on with the current one from its beginning; a reader past the end gets nothing,
    unless the journal was lost after he had read more of it than the layout tells: he still needs to hear of the end.
    """
    turn = stored.turn
    if position.attempt == turn.attempt:
        rebuilt = _of_attempt(stored)
        if position.n > rebuilt[-1].n and _lost(stored):
            return [replace(rebuilt[-1], n=position.n + 1)]
        return [event for event in rebuilt if event.n > position.n]
    if position.attempt > turn.attempt:
        return []
    first = [accepted(turn.id, stored.user_message)] if position == Position(1, 0) else []
    return first + _of_attempt(stored)


def _of_attempt(stored: StoredTurn) -> list[Event]:
    turn = stored.turn
    layout = _layout(stored)
    rebuilt = events.replay(turn.id, turn.attempt, layout, stored.message.content if stored.message else "")
    if rebuilt[0].type == events.ACCEPTED:
        rebuilt[0] = accepted(turn.id, stored.user_message, rebuilt[0].data.get("resumable", True))
    return [*rebuilt, _end(stored, len(layout) + 1)]


def _layout(stored: StoredTurn) -> Layout:
    """The stored layout, or what stands for one whose journal was lost; a later attempt begins with its reset."""
    layout = stored.layout or [{"type": events.ACCEPTED, "resumable": False}]
    first = layout[0]
    if stored.turn.attempt > 1 and isinstance(first, dict) and first["type"] == events.ACCEPTED:
        return [{"type": events.RESET, "reason": "another attempt began"}, *layout[1:]]
    return layout


def _lost(stored: StoredTurn) -> bool:
    first = (stored.layout or [0])[0]
    return stored.layout is None or (isinstance(first, dict) and first.get("resumable") is False)


def _end(stored: StoredTurn, n: int) -> Event:
    turn = stored.turn
    message = None if stored.message is None else message_json(stored.message)
    if turn.status is TurnStatus.COMPLETED:
        data: dict[str, Any] = {"message": message, "usage": usage_json(turn.usage), "cost_usd": stored.cost_usd}
    elif turn.status is TurnStatus.FAILED:
        data = {"error": error_json(turn.error or {})}
        if message is not None:
            data["message"] = message
    else:
        data = {"message": message}
    return Event(turn.id, turn.attempt, n, _TERMINAL[turn.status], data)
