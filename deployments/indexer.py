"""Keeps the vectors of all tenants' messages: reads the outbox, embeds in batches, writes, and confirms last.

Whatever stops it, and wherever, is made good by whoever claims the rows next; several of them may work at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from deployments.space_filling import fill_page, one_by_one
from deployments.vector_sync import VectorSync
from domain.errors import OtherEmbedder, Unavailable
from domain.indexing import (
    Claim,
    KnownSpace,
    Lag,
    Outbox,
    OutboxEvent,
    SpaceEmbedder,
    Spaces,
    StoredTexts,
    identity,
)
from domain.product_indexing import space_of_products
from domain.vectors import Space, VectorStore

log = logging.getLogger("brain.indexer")

BATCH = 256  # rows of the outbox
AWAKE, ASLEEP = 0.25, 1.0  # seconds between two looks: after work, and when nothing came for a while
DOZE = 20.0  # seconds without work until it is asleep
TROUBLE = 5.0  # seconds, the longest pause after a failure
MANY = 64  # writes of a tenant after which its vectors are put in order at once
QUIET = 30.0  # seconds after which they are in any case
ROUND = 5.0  # seconds between two looks at the lag
UNUSED = 120.0  # seconds that a retired space is kept: more than a claim lasts


@dataclass
class Figures:
    """What this indexer has done and seen. `writable`: whether the running embedder is that of the active space; where
    it is not, `problem` says so, and what to do."""

    done: int = 0
    set_aside: int = 0
    embedded: int = 0
    written: int = 0
    removed: int = 0
    writable: bool = False
    problem: str | None = None
    lag: Lag = field(default_factory=lambda: Lag(0, 0.0, 0))


async def _nothing_else(tenant: str) -> None:
    return


class Indexer:
    """`open_store`: the vectors of a space. `forget_tenant`: removes what else is indexed of a tenant that is gone."""

    def __init__(
        self,
        outbox: Outbox,
        spaces: Spaces,
        texts: StoredTexts,
        embedder: SpaceEmbedder,
        open_store: Callable[[Space], VectorStore],
        monotonic: Callable[[], float] = time.monotonic,
        forget_tenant: Callable[[str], Awaitable[None]] = _nothing_else,
    ) -> None:
        self._outbox, self._spaces, self._texts, self._embedder = outbox, spaces, texts, embedder
        self._open_store, self._monotonic, self._forget_tenant = open_store, monotonic, forget_tenant
        self._open: tuple[Space, VectorStore] | None = None
        self._touched: dict[str, tuple[int, float]] = {}
        self._told: str | None = None
        self._closing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.figures = Figures()

    def start(self) -> None:
        works = (self._consume(), self._fill(), self._tend())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._open is not None:
            await self._open[1].close()

    async def space(self) -> KnownSpace | None:
        """The active space, made if there is none; None, with a word in the log, where another embedder's is active."""
        info = await self._embedder.describe()
        known = await self._spaces.active()
        if known is None:
            await self._spaces.create(info, "active")
            known = await self._spaces.active()
            if known is None:
                raise Unavailable("there is no space of vectors")
        self.figures.writable = known.space.embedder == identity(info)
        if not self.figures.writable:
            self.figures.problem = str(OtherEmbedder.of(known.space.embedder, identity(info)))
            self._say(self.figures.problem)
            return None
        self.figures.problem = None
        return known

    async def step(self) -> int:
        """One batch of the outbox, from the claim to the confirmation: how many rows it was."""
        known = await self.space()
        if known is None:
            return 0
        claims = await self._outbox.claim(known.generation, BATCH)
        if not claims:
            return 0
        ids = [claim.id for claim in claims]
        try:
            failed = await self._index(known, claims)
        except Exception:
            with contextlib.suppress(Exception):  # their lease runs out
                await self._outbox.release(ids)
            raise
        for (tenant, event), error in failed.items():
            log.error("row %d of the outbox cannot be indexed: %s", event, error, extra={"tenant": tenant})
            self.figures.set_aside += await self._outbox.fail([event], f"{type(error).__name__}: {error}")
        rest = [id for id in ids if id not in {event for _, event in failed}]
        self.figures.done += await self._outbox.confirm(known.generation, rest)
        return len(ids)

    async def fill_step(self) -> int | None:
        """A page of the messages of before, while the active space is not filled; see `fill_page`."""
        known = await self.space()
        if known is None or known.filled:
            return None
        with self._sync(known.space) as sync:
            return await fill_page(known.space.name, self._spaces, self._texts, sync)

    async def put_in_order(self) -> None:
        """Optimise the vectors of tenants that were written to, and remove spaces that count no more."""
        now = self._monotonic()
        due = [tenant for tenant, (n, last) in self._touched.items() if n >= MANY or now - last >= QUIET]
        for tenant in due:
            self._touched.pop(tenant, None)
            if self._open is not None:
                await self._open[1].optimise(tenant)
        for space in await self._spaces.retired(UNUSED):
            for each in (space, space_of_products(space)):
                store = self._open_store(each)
                try:
                    await store.drop()
                finally:
                    await store.close()
            await self._spaces.forget(space.name)

    async def _index(self, known: KnownSpace, claims: Sequence[Claim]) -> dict[tuple[str, int], Exception]:
        """Bring the vectors up to date with what the rows tell; gives those that alone cannot be."""
        by_tenant: dict[str, list[Claim]] = {}
        for claim in claims:
            by_tenant.setdefault(claim.tenant, []).append(claim)
        events = {tenant: await self._outbox.read(tenant, held) for tenant, held in by_tenant.items()}
        for tenant, told in events.items():
            if any(event.topic == "tenant.deleted" for event in told):
                await self._forget_tenant(tenant)
        with self._sync(known.space) as sync:
            try:
                await sync.settle({tenant: await sync.look(tenant, told) for tenant, told in events.items()})
            except Exception as error:
                log.warning("a batch of the outbox failed, its rows are tried one by one: %s", error)
                each = {(tenant, event.id): event for tenant, told in events.items() for event in told}
                return await one_by_one(each, lambda unit: _alone(sync, unit[0], each[unit]), sync.reachable)
        return {}

    @contextlib.contextmanager
    def _sync(self, space: Space) -> Iterator[VectorSync]:
        """A sync over the open vectors of `space`, whose figures are added at the end."""
        if self._open is None or self._open[0] != space:
            before, self._open = self._open, (space, self._open_store(space))
            self._touched.clear()
            if before is not None:
                self._closing = asyncio.create_task(before[1].close())
        sync = VectorSync(self._texts, self._embedder, space, self._open[1])
        try:
            yield sync
        finally:
            self.figures.embedded += sync.embedded
            self.figures.written += sync.written
            self.figures.removed += sync.removed
            for tenant, writes in sync.touched.items():
                self._touched[tenant] = (self._touched.get(tenant, (0, 0.0))[0] + writes, self._monotonic())

    async def _consume(self) -> None:
        worked = self._monotonic()
        pause = AWAKE
        while True:
            try:
                if await self.step():
                    worked, pause = self._monotonic(), AWAKE
                    self._told = None
                    continue
                pause = AWAKE if self._monotonic() - worked < DOZE else ASLEEP
            except Exception as error:
                pause = min(2 * pause, TROUBLE)
                self._say(f"messages are not indexed at the moment: {type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    async def _fill(self) -> None:
        while True:
            try:
                pause = 0.0 if await self.fill_step() else TROUBLE
            except Exception as error:
                pause = TROUBLE
                self._say(f"earlier messages are not indexed at the moment: {type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    async def _tend(self) -> None:
        while True:
            try:
                self.figures.lag = await self._outbox.lag()
                await self.put_in_order()
            except Exception as error:
                log.warning("vectors are not put in order: %s: %s", type(error).__name__, error)
            await asyncio.sleep(ROUND)

    def _say(self, words: str) -> None:
        """Once, until something else is to be said."""
        if words != self._told:
            self._told = words
            log.warning("%s", words)


async def _alone(sync: VectorSync, tenant: str, event: OutboxEvent) -> None:
    await sync.settle({tenant: await sync.look(tenant, [event])})
