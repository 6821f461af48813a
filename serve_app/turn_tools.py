"""What turns may call (`domain.tools.Tools`): servers as the database has them, called by another deployment."""

from collections.abc import Mapping
from typing import Any

from deployments.tool_handle import HandleTools
from domain.tools import Offer, ToolAnswer, offer
from storage.catalog import CachedSettings
from storage.postgres import Pool
from storage.tool_servers import PostgresToolServers


class TurnTools:
    """A tenant's servers are believed for a second or two; consent and roles are asked for each turn."""

    def __init__(self, pool: Pool, calls: HandleTools) -> None:
        self._servers, self._calls = PostgresToolServers(pool), calls
        self._known = CachedSettings(self._servers.all)

    async def offered(self, tenant: str, user: str | None, turn_id: str) -> Offer:
        servers = await self._known.settings(tenant)
        if not servers:
            return Offer()
        return offer(await self._servers.offerings(tenant, servers, user, turn_id))

    async def call(
        self, tenant: str, server: str, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> ToolAnswer:
        return await self._calls.call(tenant, server, tool, arguments, key, seconds)
