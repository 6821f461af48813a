"""Tools that models may call inside a turn, and the servers that offer them (Model Context Protocol)."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from domain.carried import carried

Consent = Literal["none", "user"]
MOST_OFFERED = 64  # tools of one turn
LONGEST_NAME = 64  # characters that providers take
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")


class ListedTool(BaseModel):
    """A tool as its server describes it. `read_only`, `idempotent`: the server's own words, which it may break."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str | None = None
    input_schema: dict[str, Any] = {"type": "object"}
    read_only: bool = False
    idempotent: bool = False


class ToolServer(BaseModel):
    """A server that a tenant has registered. `allow`: those of its `tools` that models may call. `idempotent`: those
    that may be called twice, whatever the server says. `consent`: whether each user is asked. `roles`: of callers whose
    turns may use it; None: all. `error`: why its tools could not be listed last time. No answer shows its secret."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["tool_server"] = "tool_server"
    name: str
    url: str
    auth: Literal["none", "bearer", "header"] = "none"
    allow: list[str]
    idempotent: list[str] = []
    consent: Consent = "none"
    roles: list[str] | None = None
    tools: list[ListedTool] = []
    error: str | None = None
    listed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def allowed(self) -> list[ListedTool]:
        return [tool for tool in self.tools if tool.name in self.allow]

    def repeatable(self, tool: ListedTool) -> bool:
        """Whether a call of it may be made again where nobody knows how the first one ended."""
        return tool.read_only or tool.idempotent or tool.name in self.idempotent


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """`name`: as models know it; `server`, `tool`: what is called."""

    name: str
    server: str
    server_name: str
    tool: str
    repeatable: bool
    shape: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a turn may call, and what it may not though the tenant has it: (server's name, why)."""

    tools: tuple[OfferedTool, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def shapes(self) -> list[dict[str, Any]]:
        """As OpenAI's `tools`."""
        return [dict(one.shape) for one in self.tools]

    def find(self, name: str) -> OfferedTool | None:
        return next((one for one in self.tools if one.name == name), None)


@carried
@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """How a call ended: `lost` where it may have been made, and nobody knows how it ended. `ms`: how long it took."""

    status: Literal["done", "failed", "lost"]
    text: str
    ms: float = 0.0


class Tools(Protocol):
    """The tools of tenants. A server that is dead costs its tools, never the turn."""

    async def offered(self, tenant: str, user: str | None, turn_id: str) -> Offer:
        """What this turn of a conversation of `user`'s may call. Raises `Unavailable`."""
        ...

    async def call(
        self, tenant: str, server: str, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> ToolAnswer:
        """One call, within `seconds`. `key` names it, however often it is made. Raises nothing of the domain's."""
        ...


@dataclass(frozen=True, slots=True)
class Offering:
    """A server, and why this turn may not use it; None where it may."""

    server: ToolServer
    refused: str | None = None


def offer(found: Iterable[Offering]) -> Offer:
    """The tools of these servers under names that are unique and that every provider takes."""
    tools: dict[str, OfferedTool] = {}
    left_out: list[tuple[str, str]] = []
    for one in found:
        server, allowed = one.server, one.server.allowed
        why = one.refused or (None if allowed else server.error or "it lists none of the allowed tools")
        if why is None and len(tools) + len(allowed) > MOST_OFFERED:
            why = f"a turn is offered {MOST_OFFERED} tools at the most"
        if why is not None:
            left_out.append((server.name, why))
            continue
        for tool in allowed:
            name = called(server.name, tool.name, tools)
            shape = {"name": name, "description": tool.description or "", "parameters": tool.input_schema}
            tools[name] = OfferedTool(
                name,
                server.id,
                server.name,
                tool.name,
                server.repeatable(tool),
                {"type": "function", "function": shape},
            )
    return Offer(tuple(tools.values()), tuple(left_out))


def called(server: str, tool: str, taken: Mapping[str, Any] | Sequence[str] = ()) -> str:
    """`server__tool`, of letters, digits, `_` and `-`; with a digest where that is too long, changed or taken."""
    plain = f"{_UNFIT.sub('-', server)}__{_UNFIT.sub('-', tool)}"
    if plain == f"{server}__{tool}" and len(plain) <= LONGEST_NAME and plain not in taken:
        return plain
    digest = hashlib.sha256(f"{server}\n{tool}".encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9]}-{digest}"


@dataclass(frozen=True, slots=True)
class NewServer:
    """What a tenant registers. `sealed`: the secret that goes with each request, sealed."""

    id: str
    name: str
    url: str
    auth: Literal["none", "bearer", "header"]
    sealed: Mapping[str, Any] | None
    allow: Sequence[str]
    idempotent: Sequence[str] = ()
    consent: Consent = "none"
    roles: Sequence[str] | None = None
    key: str | None = None
    body_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server lists now, or why it does not."""

    tools: tuple[ListedTool, ...] = field(default_factory=tuple)
    error: str | None = None
