"""The end of an ingress replica that Serve replaces or does without: whoever still waits then is told to come again."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from domain.commands import Accepted, Change, Ended, Send
from domain.conversation import Conversation, ConversationKey
from domain.errors import Unavailable
from domain.ports import Hosts

log = logging.getLogger("brain.ingress")
T = TypeVar("T")
MARGIN = 3.0  # seconds before Serve ends the process, in which answers are written and the replica tidies up


class Leaving:
    """How long calls may wait here."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self.client: object = None  # what tells it

    def heard(self, running: bool, grace: float) -> None:
        """`running`: whether Serve counts this replica among those that run; where it did and does not, it ends the
        process `grace` seconds later. After its own restart it may leave a replica out for a moment."""
        if running == self._running:
            return
        self._running = running
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
    """This replica's. Serve tells it only to routers: this listens as they do, and without it, all is as it was."""
    leaving = Leaving()
    try:
        leaving.client = _listen(leaving)
    except Exception:
        log.warning("this replica will not hear of its end", exc_info=True)
    return leaving


def _listen(leaving: Leaving) -> object:
    import ray
    from ray import serve
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
    from ray.serve._private.long_poll import LongPollClient, LongPollNamespace

    own = serve.get_replica_context().replica_id

    def told(targets: Any) -> None:
        grace = serve.get_replica_context()._deployment_config.graceful_shutdown_timeout_s
        leaving.heard(any(one.replica_id == own for one in targets.running_replicas), grace)

    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    key = (LongPollNamespace.DEPLOYMENT_TARGETS, own.deployment_id)
    return LongPollClient(controller, {key: told}, asyncio.get_running_loop(), client_id=f"leaving {own.unique_id}")


@dataclass(frozen=True, slots=True)
class HostsUntil:
    """`domain.ports.Hosts` while there is time. The turns go on, and whoever comes again with their key finds them."""

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
