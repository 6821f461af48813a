"""What is done with all that comes in on channels, whatever kind they are."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping

from domain.acting import acting_for
from domain.channels import Binding, Channel, ChannelDisabled, ChannelPort, ChannelStore, Inbound, Kind, Received
from domain.commands import Send
from domain.conversation import ConversationKey
from domain.errors import ConversationEnded
from domain.ports import Hosts

log = logging.getLogger("brain.channels")


class Receiving:
    """`receive` is a `domain.channels.Receive`. `ports`: by kind, through which others hear that somebody writes.

    One inbound message is one turn: its ids are stored before its turn is asked for, and are the same when it comes
    again, so that whatever broke in between is made good by the channel's next try.
    """

    def __init__(self, store: ChannelStore, hosts: Hosts, ports: Mapping[Kind, ChannelPort]) -> None:
        self._store, self._hosts, self._ports = store, hosts, ports
        self._threads: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def receive(self, channel: Channel, inbound: Inbound) -> Received:
        """Raises `ChannelDisabled`, `Retryable`, and what a turn is refused for (`ModelNotFound`, `BudgetExceeded`)."""
        if not channel.active:
            raise ChannelDisabled()
        with acting_for(channel.tenant):
            if inbound.type == "message":
                async with self._in_order(channel.id, inbound.thread):
                    return await self._message(channel, inbound)
            if inbound.type == "typing":
                return await self._typing(channel, inbound)
            return await self._receipt(channel, inbound)

    async def close(self) -> None:
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _message(self, channel: Channel, inbound: Inbound) -> Received:
        for _ in range(2):
            arrived = await self._store.arrive(channel, inbound)
            found = Received(arrived.known, arrived.conversation, arrived.turn, arrived.message)
            if arrived.accepted:
                return found
            try:
                await self._hosts.send(_send(channel, inbound, found))
                return found
            except ConversationEnded:  # just now: its thread goes on in another one
                continue
        raise ConversationEnded()

    async def _typing(self, channel: Channel, inbound: Inbound) -> Received:
        binding = await self._store.thread(channel, inbound.thread)
        if binding is None:
            return Received()
        for other, there in await self._store.bound_to(channel.tenant, binding.conversation):
            if other.id != channel.id:
                self._tell(other, there, inbound)
        return Received(conversation=binding.conversation)

    async def _receipt(self, channel: Channel, inbound: Inbound) -> Received:
        if inbound.message is None or inbound.status is None:
            return Received()
        kept = await self._store.receipt(channel, inbound.message, inbound.status)
        return Received(duplicate=not kept, message=inbound.message)

    def _tell(self, channel: Channel, binding: Binding, inbound: Inbound) -> None:
        port = self._ports.get(channel.kind)
        if port is None:
            return
        task = asyncio.create_task(_typing(port, channel, binding, inbound))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    @contextlib.asynccontextmanager
    async def _in_order(self, channel: str, thread: str) -> AsyncIterator[None]:
        key = (channel, thread)
        lock, waiting = self._threads.get(key, (asyncio.Lock(), 0))
        self._threads[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._threads[key]
            if waiting == 1:
                del self._threads[key]
            else:
                self._threads[key] = (lock, waiting - 1)


async def _typing(port: ChannelPort, channel: Channel, binding: Binding, inbound: Inbound) -> None:
    try:
        await port.typing(channel, binding, inbound.typing, inbound.user)
    except Exception as error:
        log.debug("a channel did not hear that somebody writes: %s", error)


def _send(channel: Channel, inbound: Inbound, ids: Received) -> Send:
    assert ids.conversation is not None and ids.turn is not None and ids.message is not None
    told = {"channel_id": channel.id, "channel_message_id": inbound.id, "channel_user": inbound.user}
    return Send(
        key=ConversationKey(channel.tenant, ids.conversation),
        caller=channel.id,
        idempotency_key="channel-" + hashlib.sha256(inbound.id.encode()).hexdigest(),
        body_hash=hashlib.sha256(f"{inbound.thread}\n{inbound.text}".encode()).digest(),
        turn_id=ids.turn,
        message_id=ids.message,
        content=inbound.text,
        model=channel.model,
        metadata={**inbound.metadata, **told},
        live=False,
        wait=False,
    )
