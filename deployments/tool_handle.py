"""Tools over the handle of the deployment that calls them, so that no server of tools holds a host up."""

from collections.abc import Mapping
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import ask, plain
from domain.errors import Overloaded
from domain.tools import ToolAnswer, ToolServer


class HandleTools:
    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = plain(handle)

    async def call(
        self, tenant: str, server: str, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> ToolAnswer:
        """As `domain.tools.Tools.call`; `Unavailable` where the replica was lost: the call may have been made."""
        try:
            found: ToolAnswer = await ask(
                lambda: self._handle.call.remote(tenant, server, tool, dict(arguments), key, seconds)
            )
        except Overloaded:  # no replica took it
            return ToolAnswer("failed", "too many calls of tools are under way")
        return found

    async def refresh(self, tenant: str, server: str) -> ToolServer:
        """Ask a server for its tools and keep what it says. Raises `NotFound` and `Unavailable`."""
        found: ToolServer = await ask(lambda: self._handle.refresh.remote(tenant, server))
        return found
