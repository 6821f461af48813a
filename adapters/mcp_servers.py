"""Servers of tools by the Model Context Protocol over streamable HTTP, through the protocol's own SDK.

A session lasts for one call, over connections that are kept open between calls: so there is no session to lose, and a
server that was started anew is found at the next call. What a server speaks is remembered, so that a call is one
request where the server allows it. (https://modelcontextprotocol.io/specification)
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, DiscoverResult, Implementation, TextContent
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from adapters.guarded_http import Guarded, TooLarge
from adapters.outgoing import ForbiddenUrl
from domain.tools import ListedTool, Listing, ToolAnswer

logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it logs each failure of a server, with its URL; ours are told
logging.getLogger("httpx2").setLevel(logging.WARNING)
CONNECT = 5.0  # seconds
MOST_TOOLS, MOST_PAGES = 128, 20
LONGEST_SCHEMA = 20_000  # characters of a tool's schema as JSON
LONGEST_DESCRIPTION = 2_000  # characters
REMEMBERED = 10_000  # servers
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, ForbiddenUrl)
_REFUSALS = frozenset({401, 403, 404, 405, 415, 429})  # of HTTP, after which nothing was called
KEY = "brain/call"  # in a call's `_meta`: the same however often the call is made


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """Where a server is asked, and the headers that say who asks."""

    url: str
    headers: Mapping[str, str]


class _Watched(httpx2.AsyncBaseTransport):
    """One call's view of the shared transport: whether it may have reached the server, and what broke."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self.calling = False
        self.reached = 0  # requests of the call that may have reached the server
        self.error: Exception | None = None
        self.status: int | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sends = int(self.calling and request.method == "POST")
        self.reached += sends
        try:
            answer = await self._inner.handle_async_request(request)
        except Exception as error:
            self.error = error
            if isinstance(error, _NOT_SENT):
                self.reached -= sends
            raise
        self.status = answer.status_code
        if self.status in _REFUSALS:
            self.reached -= sends
        return answer

    async def aclose(self) -> None:
        """The connections are everybody's."""


class McpServers:
    """`async with` is not needed: `close` gives the connections back."""

    def __init__(self, transport: Guarded) -> None:
        self._transport = transport
        self._spoken: OrderedDict[str, tuple[str, DiscoverResult | None]] = OrderedDict()

    async def listing(self, endpoint: Endpoint, seconds: float) -> Listing:
        """What the server lists. Its failure is told, never raised."""
        watched = _Watched(self._transport)
        tools: list[ListedTool] = []
        try:
            async with asyncio.timeout(seconds), self._session(endpoint, watched, seconds) as client:
                cursor: str | None = None
                for _ in range(MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    tools += [_listed(tool) for tool in page.tools if _fits(tool)]
                    cursor = page.next_cursor
                    if cursor is None or len(tools) >= MOST_TOOLS:
                        break
        except Exception as error:
            return Listing((), _why(error, watched))
        return Listing(tuple(tools[:MOST_TOOLS]))

    async def call(
        self, endpoint: Endpoint, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> tuple[ToolAnswer, bool]:
        """One call, and whether the server works: it has answered. `lost` where it may have been made and its result
        did not come. Its failure is never raised."""
        watched, began = _Watched(self._transport), time.monotonic()
        result: CallToolResult | None = None
        why, works = "", True
        try:
            async with asyncio.timeout(seconds), self._session(endpoint, watched, seconds) as client:
                watched.calling = True
                result = await client.call_tool(tool, dict(arguments), meta=cast(Any, {KEY: key}))
        except Exception as error:
            why = _why(error, watched)
            works = watched.error is None and not isinstance(error, TimeoutError) and (watched.status or 500) < 500
            if _protocol_error(error) is not None and watched.error is None:  # the server answered: it refused the call
                watched.reached = 0
        ms = (time.monotonic() - began) * 1000
        if result is not None:  # also where only the session's end failed
            return ToolAnswer("failed" if result.is_error else "done", _text(result), ms), True
        return ToolAnswer("lost" if watched.reached else "failed", why, ms), works

    async def close(self) -> None:
        await self._transport.aclose()

    @asynccontextmanager
    async def _session(self, endpoint: Endpoint, watched: _Watched, seconds: float) -> AsyncIterator[Client]:
        mode, discovered = self._spoken.get(endpoint.url, ("auto", None))
        http = httpx2.AsyncClient(
            transport=watched,
            headers={"user-agent": "brain", **endpoint.headers},
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT, seconds)),
            trust_env=False,
        )
        async with http:
            client = Client(
                streamable_http_client(endpoint.url, http_client=http),
                read_timeout_seconds=seconds,
                mode=mode,
                prior_discover=discovered,
                client_info=Implementation(name="brain", version="1"),
                cache=None,
            )
            try:
                async with client:
                    client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                    self._remember(endpoint.url, client)
                    yield client
            except BaseException:
                self._spoken.pop(endpoint.url, None)  # it may speak otherwise now
                raise

    def _remember(self, url: str, client: Client) -> None:
        version = client.protocol_version
        modern = version in MODERN_PROTOCOL_VERSIONS
        self._spoken[url] = (version, client.session.discover_result) if modern else ("legacy", None)
        self._spoken.move_to_end(url)
        if len(self._spoken) > REMEMBERED:
            self._spoken.popitem(last=False)


async def _unchecked(name: str, result: CallToolResult) -> None:
    """Results are not checked against the schema that the server gives for them: its patterns would run here, and one
    that never ends would keep all tenants' calls from going on."""


def _fits(tool: Any) -> bool:
    return len(tool.name) <= 128 and len(json.dumps(tool.input_schema)) <= LONGEST_SCHEMA


def _listed(tool: Any) -> ListedTool:
    hints = tool.annotations
    return ListedTool(
        name=tool.name.replace("\0", ""),
        description=(tool.description or "").replace("\0", "")[:LONGEST_DESCRIPTION] or None,
        input_schema=json.loads(json.dumps(tool.input_schema).replace("\\u0000", "")),
        read_only=bool(hints and hints.read_only_hint),
        idempotent=bool(hints and hints.idempotent_hint),
    )


def _text(result: CallToolResult) -> str:
    """The result as the model reads it; what is no text is named."""
    parts = [one.text if isinstance(one, TextContent) else f"({one.type} left out)" for one in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _why(error: BaseException, watched: _Watched) -> str:
    cause = watched.error or _first(error)
    if isinstance(cause, TooLarge):
        return "its answer is too large"
    if isinstance(cause, ForbiddenUrl):
        return f"its URL must not be asked: {cause}"
    if isinstance(cause, TimeoutError | httpx2.TimeoutException):
        return "it did not answer in time"
    if watched.status is not None and watched.status >= 400 and watched.error is None:
        return f"it answered HTTP {watched.status}"
    refused = _protocol_error(error)
    if refused is not None and watched.error is None:
        return f"it refused: {refused.message[:500]}"
    return f"it gave no answer that can be used ({type(cause).__name__})"


def _protocol_error(error: BaseException | None) -> MCPError | None:
    """The server's own error, wherever the SDK's task groups have put it."""
    if isinstance(error, MCPError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := _protocol_error(one)) is not None), None)
    return None


def _first(error: BaseException) -> BaseException:
    """The first of a group's errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
