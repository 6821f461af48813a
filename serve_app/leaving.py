"""The end of an ingress replica that Serve replaces or does without: whoever still waits then is told to come again."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.membership import members_of
from domain.commands import Accepted, Change, Ended, Send
from domain.conversation import Conversation, ConversationKey
from domain.errors import Unavailable
from domain.ports import Hosts

T = TypeVar("T")
MARGIN = 3.0  # seconds before Serve ends the process, in which answers are written and the replica tidies up


class Leaving:
    """How long calls may wait here. A controller that was started again may leave the replica out for a moment."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.handle: DeploymentHandle | None = None  # that of this deployment: its router tells who runs

    def heard(self, running: bool, grace: float) -> None:
        """`grace`: seconds after which Serve ends the process, where it runs no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not running:
            self._timer = self._loop.call_later(max(grace - MARGIN, 0.0), self._over.set_result, None)
        elif self._over.done():
            self._over = self._loop.create_future()

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises `Unavailable` where there is no time to wait for it any more."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Unavailable("this replica is stopping")
            return task.result()
        finally:
            task.cancel()


def watched() -> Leaving:
    """This replica's, from what Serve tells the handles of it."""
    leaving, loop, context = Leaving(), asyncio.get_running_loop(), serve.get_replica_context()

    def heard(running: bool) -> None:
        config = serve.get_replica_context()._deployment_config  # Serve tells it nowhere else
        loop.call_soon_threadsafe(leaving.heard, running, config.graceful_shutdown_timeout_s)

    members_of(context.deployment).watch(context.replica_id.unique_id, heard)
    leaving.handle = serve.get_deployment_handle(context.deployment, context.app_name).options(stream=False)
    return leaving


@dataclass(frozen=True, slots=True)
class HostsUntil:
    """`domain.ports.Hosts` while there is time. The turns go on, and whoever comes again finds them by their key."""

    hosts: Hosts
    leaving: Leaving

    async def send(self, send: Send) -> Accepted | Ended:
        return await self.leaving.within(self.hosts.send(send))

    async def change(self, change: Change) -> Conversation:
        return await self.hosts.change(change)

    async def delete(self, key: ConversationKey) -> None:
        await self.hosts.delete(key)

    async def cancel(self, key: ConversationKey, turn_id: str) -> None:
        await self.hosts.cancel(key, turn_id)
