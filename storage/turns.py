"""Which turns a conversation has, for whoever watches it."""

from collections.abc import Sequence

from storage.postgres import Pool, reading
from storage.retry import again

BOUND = 200  # turns that one question finds


class TurnsOfConversations:
    """A mixin of `PostgresReader`."""

    _pool: Pool

    @again
    async def turns_after(
        self, tenant: str, conversation: str, seen: Sequence[str], everything: bool = False
    ) -> list[str]:
        """Turns to follow, in the order of their acceptance: those that have not ended; where some were `seen`, all
        that were accepted after the newest of them; or `everything`. Never one of `seen`. At most `BOUND`, the oldest
        of them."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                "SELECT t.id FROM brain.turns t WHERE t.tenant_id = $1 AND t.conversation_id = $2 AND t.id <> ALL ($3)"
                " AND ($5 OR t.status IN ('queued', 'running') OR (t.created_at, t.id) > (SELECT s.created_at, s.id"
                " FROM brain.turns s WHERE s.tenant_id = $1 AND s.conversation_id = $2 AND s.id = ANY ($3)"
                " ORDER BY s.created_at DESC, s.id DESC LIMIT 1)) ORDER BY t.created_at, t.id LIMIT $4",
                *(tenant, conversation, list(seen), BOUND, everything),
            )
        return [row["id"] for row in found]

    @again
    async def newest_turn(self, tenant: str, conversation: str) -> str | None:
        async with reading(self._pool, tenant) as lent:
            found: str | None = await lent.fetchval(
                "SELECT id FROM brain.turns WHERE tenant_id = $1 AND conversation_id = $2"
                " ORDER BY created_at DESC, id DESC LIMIT 1",
                *(tenant, conversation),
            )
        return found
