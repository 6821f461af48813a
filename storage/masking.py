"""Stored text without personal data, for tenants that want it: masked at the one place where text becomes a row.

What a conversation's owner goes on with is what was stored. So the model is asked with the masked message, too: a turn
that another host takes over is the same, its prompt's beginning stays as it was, and no provider is told what is not
kept. A reply is streamed as the model wrote it, to whoever asked; it is masked when it is stored.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from domain.commands import Ended, Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.ports import AcceptedTurn, Ownership, Reply
from storage.conversations import PostgresConversations
from storage.postgres import Pool, reading
from storage.retry import again

FRESH, BOUND = 2.0, 10_000  # seconds that a tenant's choice is believed; tenants

Masks = Callable[[str], Awaitable[bool]]
"""Whether a tenant's stored text is masked. Raises `Unavailable`: nothing is stored then."""


class MaskedConversations(PostgresConversations):
    def __init__(self, pool: Pool, masks: Masks) -> None:
        super().__init__(pool)
        self._masks = masks

    async def accept(self, key: ConversationKey, owner: Ownership, send: Send) -> AcceptedTurn:
        if await self._masks(key.tenant):
            send = replace(send, content=await masked(send.content))
        return await super().accept(key, owner, send)

    async def finish(
        self, key: ConversationKey, owner: Ownership, turn: UnfinishedTurn, attempt: int, reply: Reply
    ) -> Ended:
        if await self._masks(key.tenant):
            versions = [replace(one, content=await masked(one.content)) for one in reply.versions]
            reply = replace(reply, text=await masked(reply.text), versions=tuple(versions))
        return await super().finish(key, owner, turn, attempt, reply)


class PostgresMasks:
    """`Masks` as the tenants' settings say."""

    def __init__(self, pool: Pool, now: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._now = pool, now
        self._known: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def masks(self, tenant: str) -> bool:
        known = self._known.get(tenant)
        if known is not None and self._now() < known[0]:
            return known[1]
        found = await self._read(tenant)
        self._known[tenant] = (self._now() + FRESH, found)
        self._known.move_to_end(tenant)
        if len(self._known) > BOUND:
            self._known.popitem(last=False)
        return found

    @again
    async def _read(self, tenant: str) -> bool:
        async with reading(self._pool, tenant) as lent:
            sql = "SELECT coalesce(settings->>'pii_masking', 'off') <> 'off' FROM brain.tenants WHERE id = $1"
            return bool(await lent.fetchval(sql, tenant))


async def masked(text: str) -> str:
    """In a thread: the rules of all countries are loaded by the first text, and a long one takes a while."""
    return await asyncio.to_thread(_masked, text) if text else text


def _masked(text: str) -> str:
    from storage.personal import masked

    return masked(text)
