"""The bodies of the routes of tools."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from domain.tools import Consent, ToolServer
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.bodies import Native

_RESERVED = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept"})
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SECRET = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,4094}")


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name) or name.lower() in _RESERVED or name.lower().startswith(("mcp-", "proxy-")):
        raise ValueError("must be the name of a header that may carry a secret")
    return name


def _secret(text: str) -> str:
    if not _SECRET.fullmatch(text) or text != text.strip():
        raise ValueError("must be printable ASCII without blanks at its ends")
    return text


ServerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="begins its tools' names")]
ToolName = Annotated[str, Field(min_length=1, max_length=128)]
ToolNames = Annotated[list[ToolName], Field(max_length=128)]
Roles = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1, max_length=20)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Secret = Annotated[str, Field(max_length=4096), AfterValidator(_secret)]
HeaderName = Annotated[str, AfterValidator(_header)]


class ToolAuth(Native):
    """`bearer`: a token, sent as `Authorization: Bearer …`; or a `header` and the `secret` that it carries."""

    bearer: Secret | None = None
    header: HeaderName | None = None
    secret: Secret | None = None

    @model_validator(mode="after")
    def one_way(self) -> "ToolAuth":
        if (self.bearer is None) == (self.header is None) or (self.header is None) != (self.secret is None):
            raise ValueError("give `bearer`, or `header` and `secret`")
        return self

    @property
    def kind(self) -> Literal["bearer", "header"]:
        return "bearer" if self.bearer is not None else "header"

    @property
    def line(self) -> str:
        """The header that is sent, as `name:value`."""
        return f"authorization:Bearer {self.bearer}" if self.bearer is not None else f"{self.header}:{self.secret}"


class ToolServerCreate(Native):
    """`allow`: the tools that models may call; those that are not named are never called. `idempotent`: those that may
    be called again after a crash, whatever the server says. `consent`: whether each user is asked first.
    `permissions`: roles of callers whose turns may use it; all if absent."""

    name: ServerName
    url: Url
    auth: ToolAuth | None = None
    allow: ToolNames
    idempotent: ToolNames = Field([])
    consent: Consent = "none"
    permissions: Roles | None = None


class ToolServerPatch(Native):
    """What is given is set; `auth` and `permissions` null: none. A secret stays with its origin: with a URL of another
    one, `auth` must be given anew."""

    name: ServerName | None = None
    url: Url | None = None
    auth: ToolAuth | None = None
    allow: ToolNames | None = None
    idempotent: ToolNames | None = None
    consent: Consent | None = None
    permissions: Roles | None = None


class ServerAnswer(BaseModel):
    """A server of tools; `permissions` are roles. Its secret is never shown."""

    id: str
    object: Literal["tool_server"] = "tool_server"
    name: str
    url: str
    auth: Literal["none", "bearer", "header"]
    allow: list[str]
    idempotent: list[str]
    consent: Consent
    permissions: list[str] | None
    tools: list[str]
    error: str | None
    listed_at: str | None
    created_at: str
    updated_at: str


class ServerList(ListOf):
    data: list[ServerAnswer]


class DeletedServer(BaseModel):
    id: str
    object: Literal["tool_server"] = "tool_server"
    deleted: Literal[True] = True


class ToolCard(BaseModel):
    """A tool. `name`: as models know it. `allowed`: whether they may call it; `idempotent`: again after a crash."""

    id: str
    object: Literal["tool"] = "tool"
    name: str
    tool: str
    server_id: str
    server: str
    description: str | None
    input_schema: dict[str, Any]
    allowed: bool
    idempotent: bool
    consent: Consent


class ToolList(ListOf):
    data: list[ToolCard]


class ConsentBody(Native):
    server_id: Annotated[str, Field(min_length=1, max_length=64)]


class ConsentAnswer(BaseModel):
    """What a user is asked for, and when it agreed; null: it has not."""

    id: str
    object: Literal["tool_consent"] = "tool_consent"
    server_id: str
    server: str
    url: str
    tools: list[str]
    given_at: str | None


class ConsentList(ListOf):
    data: list[ConsentAnswer]


def server_json(server: ToolServer) -> dict[str, Any]:
    told = server.model_dump(mode="json", exclude={"roles", "tools"})
    return {**told, "permissions": server.roles, "tools": [tool.name for tool in server.tools]}
