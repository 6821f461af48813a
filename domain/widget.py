"""How a web widget looks and where it may stand."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_ORIGIN = re.compile(
    r"(https://(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    r"|http://(localhost|127\.0\.0\.1))(:\d{1,5})?"
)


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("must be an origin such as https://shop.example or https://*.shop.example, without a path")
    return value


Origin = Annotated[str, Field(max_length=255), AfterValidator(_origin)]


class WidgetSettings(BaseModel):
    """`origins`: of the pages that may show it in a frame. `suggestions`: what a visitor may ask with one press."""

    model_config = ConfigDict(extra="forbid")

    origins: list[Origin] = Field(max_length=50)
    title: str = Field("Chat", min_length=1, max_length=60)
    greeting: str = Field("Hello! How can we help?", max_length=500)
    placeholder: str = Field("Write a message…", min_length=1, max_length=100)
    colour: str = Field("#1f5eff", pattern=r"^#[0-9a-fA-F]{6}$")
    suggestions: list[Annotated[str, Field(min_length=1, max_length=120)]] = Field([], max_length=6)
