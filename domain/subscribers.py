"""Who hears of what happens: a tenant's webhooks and channels, as the API shows them."""

import re
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from domain.channels import Kind, ReceiptStatus
from domain.deliveries import DeliveryStatus
from domain.errors import BrainError

SubscriberStatus = Literal["active", "disabled"]
PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")
"""A type of event, as `turn.completed`; all that begin with a part of it, as `turn.*`; or all: `*`."""


class WebhookDisabled(BrainError):
    """This webhook is disabled: enable it first."""

    status = 409
    type = "conflict_error"
    code = "webhook_disabled"


class Subscriber(BaseModel):
    """`disabled_reason`: why nothing is sent to it, where that was not the tenant's wish."""

    id: str
    status: SubscriberStatus
    disabled_reason: str | None
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Webhook(Subscriber):
    """`include_content`: what it is sent holds the text of messages, as stored at that moment."""

    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    description: str | None
    include_content: bool


class ChannelEntry(Subscriber):
    """`settings`: see `domain.channel_settings`."""

    object: Literal["channel"] = "channel"
    kind: Kind
    name: str
    settings: dict[str, Any]


class DeliveryEntry(BaseModel):
    """A delivery in the log. `status`: `waiting` until it is `delivered`, `failed` (given up) or `skipped` (there was
    nothing left to tell). `answer`: the first 500 bytes of the last one. `receipt`: of a channel, how far it got."""

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    type: str
    conversation_id: str | None
    message_id: str | None
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    http_status: int | None
    answer: str | None
    error: str | None
    duration_ms: int | None
    receipt: ReceiptStatus | None
    created_at: datetime
    ended_at: datetime | None
