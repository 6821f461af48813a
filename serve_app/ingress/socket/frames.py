"""Frames of clients, from text to checked fields, and the frames that answer them."""

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import Field, StringConstraints, ValidationError

from domain.errors import BrainError, Retryable
from domain.events import Event
from serve_app.ingress.bodies import MessageSend, Native, parse, refuse_null
from serve_app.ingress.errors import Problem, invalid
from serve_app.ingress.sse import event_body

Id = Annotated[str, StringConstraints(max_length=64)]
EventId = Annotated[str, StringConstraints(max_length=96)]
Reference = str | int | None
LONGEST_REFERENCE = 128
_KEY = r"^[\x20-\x7e]{1,255}$"


class Frame(Native):
    """What every frame has beside `op`. `ref` is the client's own name of it, which the answer repeats."""

    ref: Annotated[str, StringConstraints(max_length=LONGEST_REFERENCE)] | int | None = None


class AuthFrame(Frame):
    token: Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class SendFrame(Frame, MessageSend):
    """As the body of `POST /conversations/{id}/messages`. `idempotency_key`: as that header."""

    conversation_id: Id
    idempotency_key: Annotated[str, StringConstraints(pattern=_KEY)] | None = None


class SubscribeFrame(Frame):
    """One of the two ids. `after`: the last event that was had, or of each turn that has not ended the last one; a
    turn's id stands for its end, and `start` for the beginning of the conversation."""

    conversation_id: Id | None = None
    turn_id: Id | None = None
    after: EventId | Annotated[list[EventId], Field(max_length=64)] | None = None


class UnsubscribeFrame(Frame):
    conversation_id: Id | None = None
    turn_id: Id | None = None


class CancelFrame(Frame):
    turn_id: Id


class TypingFrame(Frame):
    conversation_id: Id
    typing: bool = True


class ReadFrame(Frame):
    conversation_id: Id
    message_id: Id


class PresenceFrame(Frame):
    conversation_id: Id


class PingFrame(Frame):
    pass


FRAMES: dict[str, type[Frame]] = {
    "auth": AuthFrame,
    "send": SendFrame,
    "subscribe": SubscribeFrame,
    "unsubscribe": UnsubscribeFrame,
    "cancel": CancelFrame,
    "typing": TypingFrame,
    "read": ReadFrame,
    "presence": PresenceFrame,
    "ping": PingFrame,
}
F = TypeVar("F", bound=Frame)


class Misread(Exception):
    """A frame that cannot be obeyed; `ref` is its own name, as far as it can be read."""

    def __init__(self, problem: BrainError, ref: Reference) -> None:
        super().__init__(problem, ref)
        self.problem, self.ref = problem, ref


def read(text: str) -> tuple[str, Frame]:
    """The op and the checked frame. Raises `Misread`."""
    ref: Reference = None
    try:
        value = parse(text.encode(errors="replace"), "frame")
        if not isinstance(value, dict):
            raise Problem(400, "a frame is a JSON object with `op`", code="invalid_frame")
        ref = _reference(value.get("ref"))
        op = value.pop("op", None)
        if not isinstance(op, str) or op not in FRAMES:
            known = ", ".join(FRAMES)
            raise Problem(400, f"op: must be one of {known}", "op", "unknown_op")
        if "\\u0000" in text:
            refuse_null(value, 422)
        return op, FRAMES[op].model_validate(value, strict=True)
    except ValidationError as error:
        raise Misread(invalid(error, 422), ref) from None
    except Problem as problem:
        raise Misread(problem, ref) from None


def _reference(value: Any) -> Reference:
    if isinstance(value, str):
        return value[:LONGEST_REFERENCE]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(op: str, **fields: Any) -> str:
    return orjson.dumps({"op": op, **fields}).decode()


def event(conversation: str | None, told: Event) -> str:
    more = {} if conversation is None else {"conversation_id": conversation}
    return text("event", id=told.id, event=event_body(told), **more)


def error(problem: BrainError, ref: Reference, **fields: Any) -> str:
    """As the error of every answer, and in how many seconds it is worth asking again."""
    if isinstance(problem, Retryable):
        fields["retry_after"] = problem.retry_after
    return text(
        "error",
        ref=ref,
        code=problem.code,
        message=str(problem),
        type=problem.type,
        param=getattr(problem, "param", None),
        status=problem.status,
        **fields,
    )
