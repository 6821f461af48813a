"""Figures of the service as a whole, at a bounded cost."""

from typing import Any

from storage.postgres import Pool, call
from storage.retry import again

MOST = 100_000  # rows of a table that are counted one by one


class PostgresPlatform:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def figures(self, most: int = MOST) -> dict[str, Any]:
        """Tenants by status, keys, users, conversations, messages, turns by status, the outbox, living hosts.

        A table of more than `most` rows is told by its statistics, and of turns a sample is read. Raises `Unavailable`.
        """
        found: dict[str, Any] = (await call(self._pool, "SELECT brain.platform_figures($1) AS told", most))["told"]
        return found
