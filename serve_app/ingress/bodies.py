"""The bodies of the native API, and the way from bytes to a checked body."""

import re
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from domain.commands import Keep
from domain.model import AUTO
from domain.turn import OnBusy, Parameters
from serve_app.ingress.errors import Problem, invalid

B = TypeVar("B", bound=BaseModel)
DEPTH = 64  # levels of nesting that a body may have
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")

UserId = Annotated[str, Field(min_length=1, max_length=255)]
Title = Annotated[str, Field(max_length=1000)]
Instructions = Annotated[str, Field(max_length=100_000)]
ModelId = Annotated[str, Field(min_length=1, max_length=256)]
Content = Annotated[str, Field(min_length=1, max_length=32_000)]


class Native(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ConversationCreate(Native):
    user_id: UserId | None = None
    title: Title | None = None
    metadata: dict[str, Any] = {}
    system_prompt: Instructions | None = None


class ConversationPatch(Native):
    user_id: UserId | None = None
    title: Title | None = None
    metadata: dict[str, Any] = {}
    system_prompt: Instructions | None = None


class MessageSend(Native):
    """`models`: two to four that answer side by side; `keep` then says whose answer is the reply."""

    content: Content
    model: ModelId = AUTO
    stream: bool = False
    parameters: Parameters = Parameters()
    on_busy: OnBusy = "queue"
    metadata: dict[str, Any] = {}
    models: Annotated[list[ModelId], Field(min_length=2, max_length=4)] | None = None
    keep: Keep | None = None


class MessageRegenerate(Native):
    model: ModelId = AUTO
    stream: bool = False
    parameters: Parameters = Parameters()
    on_busy: OnBusy = "queue"


class MessagePatch(Native):
    metadata: dict[str, Any]


def checked(model: type[B], raw: bytes, status: int = 422, strict: bool | None = None) -> B:
    """The body as `model`. Raises `Problem`: 400 where it is no JSON (RFC 8259), `status` where a field is wrong."""
    value = parse(raw)
    if b"\\u0000" in raw:
        refuse_null(value, status)
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        raise invalid(error, status) from None


def check_models(body: MessageSend) -> None:
    """Raises `Problem` 422 where several models are named in a way that cannot be."""
    if body.models is None:
        if body.keep is not None:
            raise Problem(422, "keep: chooses among `models`, which are not given", "keep")
        return
    if body.model != AUTO:
        raise Problem(422, "model: cannot be named beside `models`", "model")
    if AUTO in body.models or len(set(body.models)) < len(body.models):
        raise Problem(422, "models: must be ids of different models, not `auto`", "models")


def parse(raw: bytes, what: str = "body") -> Any:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = "not valid UTF-8" if "utf" in error.msg.lower() else f"not valid JSON: {error.msg}"
        raise Problem(400, f"the {what} is {reason}", code="invalid_json") from None
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _depth(value) > DEPTH:
        raise Problem(400, f"the {what} is nested more than {DEPTH} levels deep", code="invalid_json")
    return value


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _PRINTABLE.fullmatch(key):
        raise Problem(400, "Idempotency-Key must be 1 to 255 printable ASCII characters", "Idempotency-Key")
    return key


def body_hash(route: str, body: BaseModel) -> bytes:
    """What a repeated key is compared by: where it was sent and what, without `stream`."""
    content = {**body.model_dump(mode="json"), "stream": None}
    for added in ("models", "keep"):  # a body without them is compared as it always was
        if content.get(added) is None:
            content.pop(added, None)
    return sha256(route.encode() + b"\n" + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def refuse_null(value: Any, status: int) -> None:
    """Postgres' text holds no NUL."""
    if not isinstance(value, dict):
        return
    for name, field in value.items():
        stack = [name, field]
        while stack:
            one = stack.pop()
            if isinstance(one, dict):
                stack += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                stack += one
            elif isinstance(one, str) and "\0" in one:
                raise Problem(status, f"{name}: must not contain the character NUL", name)
