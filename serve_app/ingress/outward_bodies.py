"""What the routes of webhooks and channels are given, and what they answer."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from adapters.allow_list import AllowList
from adapters.outgoing import ForbiddenUrl, check_socket_url, check_url
from domain.channel_settings import SETTINGS, Url, checked_settings
from domain.channels import Binding, InboundType, Kind, ReceiptStatus
from domain.permissions import Permission
from domain.subscribers import PATTERN, ChannelEntry, DeliveryEntry, SubscriberStatus, Webhook
from domain.tenant import Caller
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.auth import forbidden
from serve_app.ingress.bodies import Content, Native
from serve_app.ingress.errors import Problem, invalid
from serve_app.ingress.shapes import Json, rfc3339


def _pattern(text: str) -> str:
    if not PATTERN.fullmatch(text):
        raise ValueError("must be a type of events as turn.completed, the beginning of some as turn.*, or *")
    return text


Events = Annotated[
    list[Annotated[str, Field(max_length=100), AfterValidator(_pattern)]], Field(min_length=1, max_length=50)
]
Description = Annotated[str, Field(max_length=1000)]
ChannelName = Annotated[str, Field(min_length=1, max_length=100)]
Check = Callable[[str, AllowList], Any]
External = Annotated[str, Field(min_length=1, max_length=255)]


class WebhookCreate(Native):
    """`events`: types, beginnings as `turn.*`, or `*`. `include_content`: send messages' text, too."""

    url: Url
    events: Events
    description: Description | None = None
    include_content: bool = False


class WebhookPatch(Native):
    """`status`: what was disabled may be made active again, and the other way."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    include_content: bool | None = None
    status: SubscriberStatus | None = None


class ChannelCreate(Native):
    """`settings`: of a `webhook` or a `service` {url, model?, users?: own | shared, typing?, receipts?}."""

    kind: Kind
    name: ChannelName
    settings: dict[str, Any] = Field({})


class ChannelPatch(Native):
    """`settings`: what is named takes the place of what it was."""

    name: ChannelName | None = None
    settings: dict[str, Any] | None = None
    status: SubscriberStatus | None = None


class Bind(Native):
    """`thread`: the channel's id of where the conversation is shown; `user`: its id of who writes there."""

    channel_id: Annotated[str, Field(min_length=1, max_length=64)]
    thread: External
    user: External | None = None


class InboundBody(Native):
    """What a channel posts. `message`: `text`. `typing`: `typing`. `receipt`: `message` (our id) and `status`."""

    id: External
    type: InboundType
    thread: External
    user: External | None = None
    text: Content | None = None
    typing: bool = True
    message: Annotated[str, Field(max_length=64)] | None = None
    status: ReceiptStatus | None = None
    metadata: dict[str, Any] = Field({})

    @model_validator(mode="after")
    def whole(self) -> "InboundBody":
        if self.type == "message" and self.text is None:
            raise ValueError("a message has a text")
        if self.type == "receipt" and (self.message is None or self.status is None):
            raise ValueError("a receipt has a message and a status")
        return self


class WithSecret(Webhook):
    """`secret`: the only time that it is shown."""

    secret: str


class ChannelWithSecret(ChannelEntry):
    """`secret`: the only time that it is shown."""

    secret: str


class WebhookList(ListOf):
    data: list[Webhook]


class ChannelList(ListOf):
    data: list[ChannelEntry]


class DeliveryList(ListOf):
    data: list[DeliveryEntry]


class BindingEntry(BaseModel):
    """`id` is the channel's."""

    id: str
    object: Literal["channel_binding"] = "channel_binding"
    channel_id: str
    kind: Kind
    conversation_id: str
    thread: str
    user: str | None
    created_at: datetime


class BindingList(ListOf):
    data: list[BindingEntry]


class ChannelStatus(BaseModel):
    """`connected`: null for a kind without connections. `heard_at`: about when it last took something. `error`: what
    was wrong with the last that it did not take."""

    id: str
    object: Literal["channel.status"] = "channel.status"
    status: SubscriberStatus
    disabled_reason: str | None
    connected: bool | None
    connected_since: datetime | None
    problem: str | None
    conversations_waiting: int
    next_attempt_at: datetime | None
    heard_at: datetime | None
    error: str | None


class InboundAnswer(BaseModel):
    """`duplicate`: it had been told before, and nothing was done."""

    object: Literal["channel.received"] = "channel.received"
    duplicate: bool
    conversation_id: str | None
    turn_id: str | None
    message_id: str | None


class DeletedSubscriber(BaseModel):
    id: str
    object: Literal["webhook", "channel", "channel_binding"]
    deleted: Literal[True] = True


def check_where(url: str, allowed: AllowList, field: str = "url", check: Check = check_url) -> None:
    """Raises `Problem` 422 for a URL that will never be asked."""
    try:
        check(url, allowed)
    except ForbiddenUrl as error:
        raise Problem(422, f"{field}: {error}", field, error.code) from None


def check_content(who: Caller) -> None:
    """Raises `Problem` 403: whoever has messages sent somewhere must be one who may read them all."""
    for permission in (Permission.CONVERSATIONS_READ, Permission.CONVERSATIONS_ANY):
        if not who.may(permission):
            raise forbidden(permission)


def settings_of(kind: Kind, settings: dict[str, Any], allowed: AllowList) -> dict[str, Any]:
    """With defaults. Raises `Problem` 422."""
    if kind not in SETTINGS:
        raise Problem(422, f"kind: there are no channels of the kind {kind} here", "kind")
    try:
        found = checked_settings(kind, settings)
    except ValidationError as error:
        problem = invalid(error, 422)
        raise Problem(422, f"settings.{problem}", f"settings.{problem.param}") from None
    if "url" in found:
        check_where(found["url"], allowed, "settings.url", check_socket_url if kind == "service" else check_url)
    return found


def shown(entry: BaseModel) -> Json:
    """With times as the API writes them."""
    values = entry.model_dump()
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in values.items()}


def binding_json(binding: Binding) -> Json:
    return {
        "id": binding.channel,
        "object": "channel_binding",
        "channel_id": binding.channel,
        "kind": binding.kind,
        "conversation_id": binding.conversation,
        "thread": binding.thread,
        "user": binding.user,
        "created_at": rfc3339(binding.created_at),
    }
