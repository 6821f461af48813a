"""Calls tools for turns: looks the server up, opens its secret, asks it, and leaves one alone that keeps failing."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from adapters.mcp_servers import Endpoint, McpServers
from domain.circuit import Circuit, State
from domain.errors import BrainError, NotFound
from domain.model import Breaker
from domain.tools import Listing, ToolAnswer, ToolServer
from storage.sealing import CannotOpen, MasterKeys
from storage.tool_servers import PostgresToolServers, seal_name

LISTING = 15.0  # seconds
AT_ONCE = 32  # calls of one server
REMEMBERED = 10_000  # servers
BREAKER = Breaker(failures=5, window=60, open=15)


class ToolService:
    """`servers`: what tenants have registered; `keys` open their secrets."""

    def __init__(
        self,
        servers: PostgresToolServers,
        keys: MasterKeys,
        mcp: McpServers,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers, self._keys, self._mcp, self._monotonic = servers, keys, mcp, monotonic
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()
        self._running: dict[str, int] = {}

    async def call(
        self, tenant: str, server_id: str, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> ToolAnswer:
        """As `domain.tools.Tools.call`."""
        try:
            server, sealed = await self._servers.with_secret(tenant, server_id)
            endpoint = self._endpoint(server, sealed)
        except BrainError as error:
            return ToolAnswer("failed", str(error))
        if tool not in server.allow:
            return ToolAnswer("failed", "this tool is not allowed any more")
        circuit, now = self._circuit(server_id), self._monotonic()
        state = circuit.state(now)
        if state is State.OPEN or (state is State.HALF_OPEN and circuit.probing):
            return ToolAnswer("failed", "its server has failed several times and is left alone for some seconds")
        if self._running.get(server_id, 0) >= AT_ONCE:
            return ToolAnswer("failed", "too many calls of its server are under way")
        self._running[server_id] = self._running.get(server_id, 0) + 1
        circuit.probing = state is State.HALF_OPEN
        try:
            answer, reached = await self._mcp.call(endpoint, tool, arguments, key, seconds)
        finally:
            circuit.probing = False
            self._running[server_id] -= 1
            if not self._running[server_id]:
                del self._running[server_id]
        self._learn(circuit, state, reached)
        return answer

    async def refresh(self, tenant: str, server_id: str) -> ToolServer:
        """Ask a server for its tools and keep what it says. Raises `NotFound` and `Unavailable`."""
        server, sealed = await self._servers.with_secret(tenant, server_id)
        try:
            listing = await self._mcp.listing(self._endpoint(server, sealed), LISTING)
        except NotFound as error:
            listing = Listing((), str(error))
        return await self._servers.listed(tenant, server_id, listing)

    async def close(self) -> None:
        await self._mcp.close()

    def _endpoint(self, server: ToolServer, sealed: Mapping[str, Any] | None) -> Endpoint:
        if sealed is None:
            return Endpoint(server.url, {})
        try:
            name, _, value = self._keys.open(sealed, seal_name(server.id, server.url)).decode().partition(":")
        except CannotOpen as error:
            raise NotFound(f"its secret cannot be opened: {error}") from None
        return Endpoint(server.url, {name: value})

    def _circuit(self, server_id: str) -> Circuit:
        circuit = self._circuits.setdefault(server_id, Circuit(BREAKER))
        self._circuits.move_to_end(server_id)
        if len(self._circuits) > REMEMBERED:
            self._circuits.popitem(last=False)
        return circuit

    def _learn(self, circuit: Circuit, before: State, reached: bool) -> None:
        now = self._monotonic()
        if reached and before is State.CLOSED:
            circuit.succeeded(now)
        elif reached:
            circuit.close(now)
        elif before is State.CLOSED:
            circuit.failed(now)
        else:
            circuit.open(now, now + BREAKER.open)
