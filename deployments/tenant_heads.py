"""Tenants' own heads, as the classifier's replicas hold them: at most two seconds behind the last activation."""

import asyncio
import contextvars
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from deployments.meaning import Meaning
from deployments.understanding import read_head
from domain.errors import BrainError, Unavailable

log = logging.getLogger("brain.intents")

POLL = 0.5  # seconds between looks at which versions are active
PATIENCE = 1.0  # seconds that a message waits for its tenant's head to be read, the first time and after a silence
SILENCE = 60.0  # seconds after which a tenant's versions are not looked at until its next message
MOST_BYTES = 256 * 1024 * 1024
EMPTY = 2000  # bytes that a tenant costs, an estimate; those without a head are remembered too

Activation = tuple[int, datetime]


class Kept(Protocol):
    """A head as storage keeps it."""

    @property
    def version(self) -> int: ...
    @property
    def embedder(self) -> str: ...
    @property
    def artefact(self) -> bytes: ...
    @property
    def definitions(self) -> Mapping[str, Mapping[str, Any]]: ...


class Active(Protocol):
    """The version that should be used."""

    @property
    def version(self) -> int: ...
    @property
    def embedder(self) -> str: ...
    @property
    def activated_at(self) -> datetime | None: ...


class Store(Protocol):
    async def usable(self, tenant: str, embedder: str) -> tuple[Kept | None, Active | None]: ...

    async def active_versions(self, tenants: list[str]) -> Mapping[str, Activation]: ...


@dataclass(slots=True)
class Held:
    """What is used for a tenant: None is the shared set. `active`: what was active when it was read."""

    meaning: Meaning | None = None
    active: Activation | None = None
    problem: str | None = None
    size: int = EMPTY
    asked: float = 0.0


class TenantHeads:
    """Reads a tenant's head at its first message, after a silence, and when another one becomes active: until that has
    been read, the one before answers. What cannot be read leaves the last one known, or the shared set.

    `embedder`: name and revision of the one that runs. Bounded: the tenants that asked longest ago are forgotten.
    """

    def __init__(
        self,
        store: Store,
        embedder: str,
        most_bytes: int = MOST_BYTES,
        poll: float = POLL,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._embedder, self._most_bytes, self._poll = store, embedder, most_bytes, poll
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._bytes, self._monotonic = 0, monotonic
        self._watch: asyncio.Task[None] | None = None

    async def of(self, tenant: str) -> Held:
        """Costs no I/O but at a tenant's first message, and its first one after a silence."""
        held, now = self._held.get(tenant), self._monotonic()
        if held is not None and now - held.asked < SILENCE:
            self._held.move_to_end(tenant)
            held.asked = now
            return held
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(), context=contextvars.Context())
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._read(tenant))
        held = self._held.get(tenant) or held or Held()
        held.asked = now
        return held

    @property
    def bytes(self) -> int:
        """An estimate."""
        return self._bytes

    async def close(self) -> None:
        tasks = [*self._reading.values(), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Look once at which versions are active, and read those that are new. Raises `Unavailable`."""
        heard = self._monotonic() - SILENCE
        tenants = [tenant for tenant, held in self._held.items() if held.asked > heard]
        found = await self._store.active_versions(tenants) if tenants else {}
        changed = [name for name in tenants if name in self._held and found.get(name) != self._held[name].active]
        await asyncio.gather(*(self._read(tenant) for tenant in changed))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.refresh()
            except BrainError as error:
                log.debug("which heads are active is not known at the moment: %s", error)
            except Exception:
                log.exception("looking for new heads failed")

    def _read(self, tenant: str) -> asyncio.Task[None]:
        """One reading at a time of each tenant, in no request's context."""
        task = self._reading.get(tenant)
        if task is None:
            task = asyncio.create_task(self._take(tenant), context=contextvars.Context())
            self._reading[tenant] = task
            task.add_done_callback(lambda done: self._read_ended(tenant, done))
        return task

    def _read_ended(self, tenant: str, task: asyncio.Task[None]) -> None:
        self._reading.pop(tenant, None)
        if not task.cancelled():
            task.exception()  # told to whoever waits, if anybody does

    async def _take(self, tenant: str) -> None:
        kept, active = await self._store.usable(tenant, self._embedder)
        before = self._held.get(tenant)
        held = Held(asked=before.asked if before else self._monotonic())
        if active is not None and active.activated_at is not None:
            held.active = (active.version, active.activated_at)
            held.problem = _problem(active, kept, self._embedder)
        if kept is not None:
            try:
                held.meaning = await asyncio.to_thread(_built, kept)
                held.size = EMPTY + len(kept.artefact) + held.meaning.size
            except Exception as error:  # whatever a head of another version holds, it costs no message its answer
                held.problem = f"version {kept.version} cannot be used: {error}"
                held.meaning = before.meaning if before else None
                held.size = before.size if before else EMPTY
        if held.problem and (before is None or before.problem != held.problem):
            log.warning("tenant %s: %s", tenant, held.problem)
        self._keep(tenant, held)

    def _keep(self, tenant: str, held: Held) -> None:
        before = self._held.pop(tenant, None)
        self._bytes += held.size - (before.size if before else 0)
        self._held[tenant] = held
        while self._bytes > self._most_bytes and len(self._held) > 1:
            _, forgotten = self._held.popitem(last=False)
            self._bytes -= forgotten.size


def _problem(active: Active, kept: Kept | None, embedder: str) -> str | None:
    if active.embedder == embedder:
        return None
    instead = f"version {kept.version}" if kept is not None else "the shared set"
    return (
        f"version {active.version} was trained with the embedder {active.embedder}, and {embedder} runs here:"
        f" {instead} is used; train again"
    )


def _built(kept: Kept) -> Meaning:
    return Meaning(kept.version, read_head(kept.artefact), kept.definitions)
