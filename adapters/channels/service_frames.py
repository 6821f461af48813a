"""Frames of `docs/service-channel.md`: read with their bounds, and the numbers by which a connection is closed."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from adapters.channels.webhook import outbound_json
from domain.channels import Channel, Inbound, InboundType, Outbound, ReceiptStatus

VERSION = 1
LONGEST = 256 * 1024  # bytes of a frame
WINDOW = 64  # of what came in, told and not answered yet

LEAVING, BAD_FRAME, UNAUTHORISED, SUPERSEDED = 1001, 4400, 4401, 4409
OTHER_VERSION, TRY_AGAIN, NO_ANSWER = 4426, 4503, 4504

Id = Annotated[str, Field(min_length=1, max_length=255)]


class _Frame(BaseModel):
    """What a later version adds is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Welcome(_Frame):
    frame: Literal["welcome"]
    version: int


class Tell(_Frame):
    """Fields by `type`, as in docs/channels.md. `cursor`: where in the service's own log this stands."""

    frame: Literal["tell"]
    id: Id
    type: InboundType
    thread: Id
    user: Id | None = None
    text: Annotated[str, Field(min_length=1, max_length=32_000)] | None = None
    typing: bool = True
    message: Annotated[str, Field(max_length=64)] | None = None
    status: ReceiptStatus | None = None
    metadata: dict[str, Any] = Field({})
    cursor: Annotated[str, Field(min_length=1, max_length=512)] | None = None

    @model_validator(mode="after")
    def whole(self) -> "Tell":
        if self.type == "message" and self.text is None:
            raise ValueError("a message has a text")
        if self.type == "receipt" and (self.message is None or self.status is None):
            raise ValueError("a receipt has a message and a status")
        return self

    @property
    def inbound(self) -> Inbound:
        return Inbound(
            self.id,
            self.type,
            self.thread,
            self.user,
            self.text or "",
            self.typing,
            self.message,
            self.status,
            self.metadata,
        )


class Ack(_Frame):
    frame: Literal["ack"]
    id: Id


class Refusal(_Frame):
    """`after`: seconds until it may be told again. `gone`: nothing more is wanted on this channel, ever."""

    frame: Literal["error"]
    id: Id
    code: Annotated[str, Field(max_length=64)] = "refused"
    message: Annotated[str, Field(max_length=500)] = ""
    after: Annotated[float, Field(ge=0, le=86_400)] | None = None
    gone: bool = False


class Ping(_Frame):
    frame: Literal["ping", "pong"]
    id: Id


class Bye(_Frame):
    """`after`: seconds until a new connection is wanted."""

    frame: Literal["bye"]
    reason: Annotated[str, Field(max_length=200)] = ""
    after: Annotated[float, Field(ge=0, le=300)] | None = None


Frame = Welcome | Tell | Ack | Refusal | Ping | Bye
_FRAMES: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Field(discriminator="frame")])


class BadFrame(Exception):
    """No frame of the contract. `id`: of what it tells, where that much could be read."""

    def __init__(self, words: str, id: str | None = None) -> None:
        super().__init__(words)
        self.id = id


def read(text: str) -> Frame:
    """Raises `BadFrame`."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFrame("a frame is a JSON object") from None
    try:
        return _FRAMES.validate_python(given)
    except ValidationError as error:
        told = isinstance(given, dict) and given.get("frame") == "tell"
        id = given.get("id") if told else None
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        words = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise BadFrame(words, id if isinstance(id, str) and 0 < len(id) <= 255 else None) from None


def written(frame: Mapping[str, Any]) -> str:
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def tell(channel: Channel, out: Outbound) -> dict[str, Any]:
    return {"frame": "tell", **outbound_json(channel, out)}
