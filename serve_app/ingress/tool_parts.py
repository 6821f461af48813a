"""What the routes of tools, and the service's own server of tools, work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ray.serve.handle import DeploymentHandle

from adapters.allow_list import NONE, AllowList
from deployments.tool_handle import HandleTools
from domain.tools import ToolServer
from serve_app.settings import Settings
from storage.postgres import Pool
from storage.sealing import MasterKeys
from storage.tool_servers import PostgresToolServers


@dataclass(frozen=True, slots=True)
class ToolParts:
    """`refresh` asks a server for its tools. `keys` seal servers' secrets. `allowed`: private addresses that servers
    may have all the same."""

    servers: PostgresToolServers
    refresh: Callable[[str, str], Awaitable[ToolServer]]
    keys: MasterKeys
    allowed: AllowList = NONE


def tool_parts(settings: Settings, pool: Pool, handle: DeploymentHandle) -> ToolParts:
    """Those of an ingress replica."""
    return ToolParts(
        PostgresToolServers(pool),
        HandleTools(handle).refresh,
        settings.master_keys,
        settings.outgoing,
    )
