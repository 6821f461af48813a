"""Stored text without personal data, for tenants that want it: masked at the one place where text becomes a row.

What a conversation's owner goes on with is what was stored. So the model is asked with the masked message, too: a turn
that another host takes over is the same, its prompt's beginning stays as it was, and no provider is told what is not
kept. A reply is streamed as the model wrote it, to whoever asked; it is masked when it is stored.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from domain.commands import Append, Appended, Ended, Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.ports import AcceptedTurn, Ownership, Reply, TenantsSettings
from domain.tool_calls import ToolCall, parsed
from storage.conversations import PostgresConversations
from storage.postgres import Pool

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

    async def append(self, owner: Ownership, append: Append) -> Appended:
        if await self._masks(append.key.tenant):
            append = replace(append, content=await masked(append.content))
        return await super().append(owner, append)

    async def plan_calls(self, key: ConversationKey, owner: Ownership, turn_id: str, calls: Sequence[ToolCall]) -> None:
        if await self._masks(key.tenant):
            calls = [replace(one, arguments=await _masked_json(one.arguments)) for one in calls]
        await super().plan_calls(key, owner, turn_id, calls)

    async def end_call(self, tenant: str, turn_id: str, ended: ToolCall) -> ToolCall:
        if ended.result and await self._masks(tenant):
            ended = replace(ended, result=await masked(ended.result))
        return await super().end_call(tenant, turn_id, ended)


async def _masked_json(arguments: str) -> str:
    """Masked text by text, so that they stay the JSON that they are."""
    value = parsed(arguments)
    if value is None:
        return await masked(arguments)

    async def within(one: Any) -> Any:
        if isinstance(one, str):
            return await masked(one)
        if isinstance(one, list):
            return [await within(inner) for inner in one]
        if isinstance(one, dict):
            return {await masked(name): await within(inner) for name, inner in one.items()}
        return one

    return json.dumps(await within(value), ensure_ascii=False)


def masks_of(tenants: TenantsSettings) -> Masks:
    """As the tenants' settings say."""

    async def masks(tenant: str) -> bool:
        return (await tenants.settings(tenant)).pii_masking == "mask"

    return masks


async def masked(text: str) -> str:
    """In a thread: the rules of all countries are loaded by the first text, and a long one takes a while."""
    return await asyncio.to_thread(_masked, text) if text else text


def _masked(text: str) -> str:
    from storage.personal import masked

    return masked(text)
