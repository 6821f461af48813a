"""What a channel is set to, by its kind."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.channels import Kind
from domain.widget import WidgetSettings

Url = Annotated[str, Field(min_length=1, max_length=2000)]


class ChannelSettings(BaseModel):
    """`model`: which answers. `users`: `own` users of the channel are no users of the tenant's and get names of their
    own (`<channel>:<user>`); `shared` ones are those of the same id."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=256)] = "auto"
    users: Literal["own", "shared"] = "own"


class WebhookChannelSettings(ChannelSettings):
    """`url`: where to send. `typing`, `receipts`: whether these are sent, too."""

    url: Url
    typing: bool = True
    receipts: bool = True


class ServiceChannelSettings(WebhookChannelSettings):
    """`url`: of the WebSocket (`wss://`) over which the service is told, and tells."""


SETTINGS: dict[Kind, type[BaseModel]] = {
    "webhook": WebhookChannelSettings,
    "service": ServiceChannelSettings,
    "widget": WidgetSettings,
}
"""Of the kinds that there are."""


def checked_settings(kind: Kind, settings: dict[str, Any]) -> dict[str, Any]:
    """With defaults filled in. Raises pydantic's `ValidationError`, KeyError for a kind that is not there."""
    return SETTINGS[kind].model_validate(settings).model_dump()
