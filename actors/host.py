"""Holds thousands of conversation actors in one Serve replica, renews its lease, and takes over from dead hosts."""

import asyncio
import logging
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from actors.conversation import ConversationActor
from actors.parts import AllHealthy, Estimates, EveryModel, HostLimits, NoMemory, NoTools, Parts, UsualSettings
from domain.acting import TENANT, acting_for
from domain.commands import Accepted, Append, Appended, Change, Ended, Send
from domain.conversation import Conversation, ConversationKey
from domain.errors import BrainError, Fenced, Overloaded, Unavailable
from domain.model import Catalog
from domain.ports import (
    Classifier,
    ConversationStore,
    Health,
    Journal,
    LanguageModel,
    Leases,
    Memory,
    TenantModels,
    TenantsSettings,
    TokenCounters,
    Tools,
)
from domain.products import ProductCatalogue

log = logging.getLogger("brain.host")
TAKING_OVER = 15.0  # seconds that a sweep waits for a host which does not answer
ENDING = 2.5  # seconds that a stopping host has to give its lease back, and to charge for what it cuts off: it is
# killed after four, and has more to close by then
Resume = Callable[[ConversationKey], Awaitable[None]]


class ConversationHost:
    """`resume` reaches the current host of a conversation, which may be this one. Call `start` before the first use."""

    def __init__(
        self,
        store: ConversationStore,
        leases: Leases,
        journal: Journal,
        llm: LanguageModel,
        classifier: Classifier,
        catalog: Catalog,
        resume: Resume,
        limits: HostLimits | None = None,
        models: TenantModels | None = None,
        health: Health | None = None,
        memory: Memory | None = None,
        counters: TokenCounters | None = None,
        tenants: TenantsSettings | None = None,
        products: ProductCatalogue | None = None,
        tools: Tools | None = None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.parts = Parts(
            self.id,
            store,
            journal,
            llm,
            classifier,
            catalog,
            limits or HostLimits(),
            models or EveryModel(),
            health or AllHealthy(),
            memory or NoMemory(),
            counters or Estimates(),
            tenants or UsualSettings(),
            products,
            tools or NoTools(),
        )
        self._leases, self._resume = leases, resume
        self._actors: OrderedDict[ConversationKey, ConversationActor] = OrderedDict()
        self._loops: list[asyncio.Task[None]] = []
        self._renewed = 0.0
        self._leased_since = 0.0
        self._stopping = False
        self._turns = 0  # unfinished ones at the last count, and all that came since
        self._missing: set[tuple[ConversationKey, str]] = set()

    async def start(self) -> None:
        try:
            await self._renew()
        except BrainError as error:
            log.warning("no lease yet: %s", error)
        self._loops = [
            asyncio.create_task(self._every(self.parts.limits.lease / 3, self._renew)),
            asyncio.create_task(self._every(self.parts.limits.lease / 3, self._sweep)),
            asyncio.create_task(self._every(self.parts.limits.lease, self._audit)),
            asyncio.create_task(self._every(1.0, self._put_away)),
            asyncio.create_task(self._every(600.0, self._leases.prune)),
        ]

    async def stop(self) -> None:
        """Give the conversations back: callers repeat elsewhere, and the next owners take the turns over at once.

        Returns within ENDING seconds or little more; what has not ended by then goes on while the process lives.
        """
        self._stopping, until = True, time.monotonic() + ENDING
        beside = (*self.parts.shadows, *self.parts.summaries)
        for task in (*self._loops, *beside):
            task.cancel()
        self.parts.structures.close()
        for actor in list(self._actors.values()):
            actor.stop(Fenced("this host is stopping"))
        first = {*beside, asyncio.create_task(self._release())}
        left = await self._ended(first, until)
        if left:
            log.warning("%d pieces of work have not ended, and some may not be charged for", len(left))

    def configure(self, catalog: Catalog) -> None:
        self.parts.catalog = catalog

    async def send(self, send: Send) -> Accepted | Ended:
        if self.parts.waiting >= self.parts.limits.waiting or self._turns >= self.parts.limits.turns:
            raise Overloaded()
        self._turns += 1
        return await self._actor(send.key).send(send)

    async def change(self, change: Change) -> Conversation:
        return await self._actor(change.key).change(change)

    async def append(self, append: Append) -> Appended:
        return await self._actor(append.key).append(append)

    async def delete(self, key: ConversationKey) -> None:
        await self._actor(key).delete()

    async def cancel(self, key: ConversationKey, turn_id: str) -> None:
        """Never activates: if the conversation is not here, its owner or the next one reads the wish in Postgres."""
        actor = self._actors.get(key)
        if actor is not None:
            await actor.cancel(turn_id)

    async def resume(self, key: ConversationKey) -> None:
        await self._actor(key).resume()

    @property
    def hot(self) -> int:
        return len(self._actors)

    @property
    def hot_bytes(self) -> int:
        return sum(actor.size for actor in self._actors.values())

    @property
    def unfinished(self) -> int:
        return sum(len(actor.turns) for actor in self._actors.values())

    def _actor(self, key: ConversationKey) -> ConversationActor:
        if self._stopping:
            raise Unavailable("this host is stopping")
        TENANT.set(key.tenant)  # of the call at hand, and of the tasks that begin with it
        actor = self._actors.get(key)
        if actor is None:
            actor = self._actors[key] = ConversationActor(key, self.parts, self._discard)
        else:
            self._actors.move_to_end(key)
        return actor

    def _discard(self, actor: ConversationActor) -> None:
        if self._actors.get(actor.key) is actor:
            del self._actors[actor.key]

    async def _ended(self, first: set[asyncio.Task[None]], until: float) -> set[asyncio.Task[None]]:
        """Wait for `first`, and for endings, which may begin as long as any of them lasts: those that last longer."""
        while left := {task for task in (*first, *self.parts.endings) if not task.done()}:
            patience = until - time.monotonic()
            if patience <= 0:
                break
            await asyncio.wait(left, timeout=patience)
        return left

    async def _release(self) -> None:
        try:
            await self._leases.release(self.id)
        except BrainError as error:
            log.warning("the lease was not given back: %s", error)

    async def _renew(self) -> None:
        began = time.monotonic()
        await self._leases.renew(self.id)
        if began - self._renewed > self.parts.limits.lease:
            self._leased_since = began
        self._renewed = began

    async def _sweep(self) -> None:
        """Send the unfinished turns of dead hosts to their current hosts. After an outage everybody's lease has run
        out: wait one lease, so that the living can renew theirs."""
        now = time.monotonic()
        if now - self._renewed > self.parts.limits.lease or now - self._leased_since < self.parts.limits.lease:
            return
        keys = await self._leases.orphans(self.parts.limits.lease, 100)
        found = await asyncio.gather(
            *(asyncio.wait_for(self._resume(key), TAKING_OVER) for key in keys), return_exceptions=True
        )
        for key, error in zip(keys, found, strict=True):
            if isinstance(error, BaseException):
                told = {"tenant": key.tenant, "conversation_id": key.conversation}
                log.warning("taking over failed: %r", error, extra=told)

    async def _audit(self) -> None:
        """Take up again what this host owns by Postgres and knows nothing of.

        An answer of Postgres that was lost on its way can leave such a turn. One look may meet a turn on its way in or
        out; the second one counts.
        """
        owned = await self._leases.unfinished(self.id, 2 * self.parts.limits.lease)
        missing = {(key, turn) for key, turn in owned if key not in self._actors or turn not in self._actors[key].turns}
        for key in {key for key, turn in missing & self._missing}:
            with acting_for(key.tenant):
                log.warning("taking a conversation up again", extra={"conversation_id": key.conversation})
                if key in self._actors:
                    self._actors[key].stop(Fenced("this conversation is taken up again"))
                await self.resume(key)
        self._missing = missing

    async def _put_away(self) -> None:
        """Put idle conversations away, and the least recently used ones while memory is short; count what is left."""
        self._turns = self.unfinished
        horizon = time.monotonic() - self.parts.limits.idle
        size = self.hot_bytes
        for key, actor in list(self._actors.items()):
            if actor.mailbox.touched > horizon and size <= self.parts.limits.hot_bytes:
                break
            if actor.quiet:
                del self._actors[key]
                size -= actor.size

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))
            try:
                await work()
            except BrainError as error:
                log.warning("%s: %s", work.__name__, error)
            except Exception:
                log.exception("%s failed", work.__name__)
