"""What the routes of users and of signing in are given, and how they answer."""

import hmac
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, Field

from domain.user import User, UserStatus
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.bodies import Content, Native
from serve_app.ingress.passwords import LONGEST, SHORTEST
from serve_app.ingress.shapes import Json, as_stored, rfc3339
from storage.sessions import OpenSession

_LARGEST = 16 * 1024  # bytes of preferences or metadata, as JSON


def _address(email: str) -> str:
    name, at, host = email.rpartition("@")
    if not (name and at and host) or "@" in name or not email.isprintable() or " " in email or "." not in host:
        raise ValueError("must be an e-mail address")
    return email


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(value)) > _LARGEST:
        raise ValueError(f"must not be larger than {_LARGEST} bytes")
    return value


Email = Annotated[str, Field(min_length=3, max_length=254), AfterValidator(_address)]
NewPassword = Annotated[str, Field(min_length=SHORTEST, max_length=LONGEST)]
Password = Annotated[str, Field(min_length=1, max_length=LONGEST)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Small = Annotated[dict[str, Any], AfterValidator(_small)]
Role = Annotated[str, Field(min_length=1, max_length=63)]


class Register(Native):
    email: Email
    password: NewPassword
    name: Name | None = None
    preferences: Small = Field({})
    metadata: Small = Field({})


class Login(Native):
    email: Annotated[str, Field(min_length=1, max_length=254)]
    password: Password


class Refresh(Native):
    refresh_token: Annotated[str, Field(min_length=1, max_length=512)]


class PasswordChange(Native):
    current_password: Password
    new_password: NewPassword


class UserCreate(Native):
    """Without a password the user cannot sign in here until an administrator sets one."""

    email: Email
    password: NewPassword | None = None
    name: Name | None = None
    role: Role = "member"
    status: UserStatus = "active"
    preferences: Small = Field({})
    metadata: Small = Field({})


class UserPatch(Native):
    """Users change their own `name` and `preferences`; the rest is for who manages users."""

    name: Name | None = None
    preferences: Small = Field({})
    metadata: Small = Field({})
    email: Email = ""
    password: NewPassword = ""
    role: Role = ""
    status: UserStatus = "active"


class SystemMessage(Native):
    conversation_id: Annotated[str, Field(min_length=1, max_length=255)]
    content: Content
    metadata: Small = Field({})


class SignedIn(BaseModel):
    """`expires_in`: seconds that the access token counts."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    user: User


class SignedOut(BaseModel):
    object: Literal["session"] = "session"
    id: str | None
    ended: Literal[True] = True


class EndedSessions(BaseModel):
    """How many sign-ins ended."""

    object: Literal["sessions"] = "sessions"
    user_id: str
    ended: int


class SessionList(ListOf):
    data: list[OpenSession]


class UserList(ListOf):
    data: list[User]


class DeletedUser(BaseModel):
    id: str
    object: Literal["user"] = "user"
    deleted: Literal[True] = True
    conversations_deleted: int
    conversations_kept: int


class Activity(BaseModel):
    """A message (`status` is null) or a turn (`role` is null) of a user's conversations."""

    id: str
    object: Literal["message", "turn"]
    conversation_id: str
    role: str | None
    status: str | None
    created_at: str


class ActivityList(ListOf):
    data: list[Activity]


class ModelUsage(BaseModel):
    model: str
    calls: int
    turns: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float
    unpriced_calls: int


class UserUsage(BaseModel):
    object: Literal["user.usage"] = "user.usage"
    user_id: str
    start: str
    end: str
    totals: ModelUsage
    by_model: list[ModelUsage]


def user_json(user: User) -> Json:
    return {
        "id": user.id,
        "object": "user",
        "tenant_id": user.tenant_id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "status": user.status,
        "preferences": as_stored(user.preferences),
        "metadata": as_stored(user.metadata),
        "created_at": rfc3339(user.created_at),
        "updated_at": rfc3339(user.updated_at),
        "last_active_at": None if user.last_active_at is None else rfc3339(user.last_active_at),
    }


def secret_hash(key: bytes, route: str, body: BaseModel) -> bytes:
    """What a repeated idempotency key is compared by where the body holds a password: an HMAC, for a plain hash of a
    password could be guessed at."""
    content = orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hmac.digest(key, route.encode() + b"\n" + content, "sha256")
