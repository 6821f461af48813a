"""The deployment that calls hosted models: generations that outlive their callers, and the journal's deltas."""

import asyncio
import contextvars
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from deployments.counting import Counting
from deployments.generation import Generation
from deployments.policies import observe
from deployments.policies.breaker import SharedBreakers
from deployments.policies.composed import Composed, Sleep
from deployments.providers import Wire
from deployments.providers.http import HttpPool
from deployments.providers.openai import OpenAIWire
from deployments.providers.scripted import ScriptedWire
from deployments.recording import Recording
from domain.acting import TENANT
from domain.errors import Overloaded, Unavailable
from domain.generation import GenerationRequest, Outcome
from domain.model import Catalog, parse_catalog
from domain.ports import Journal

log = logging.getLogger(__name__)

MAX_CONCURRENT = 4096  # places at providers are bounded by the catalog; this bounds memory
KEPT, MAX_KEPT = 60.0, 2048  # seconds and number of outcomes that a late caller can still join
BEAT = 1.0  # seconds

Name = tuple[str, str]


class HostedLLM:
    """Runs generations against the catalog's providers; a `LanguageModel` (domain/ports.py).

    A generation is a task named by turn and attempt. It does not belong to the call that started it: that call's
    cancellation leaves it running, and a second call of its name joins it.

    `eager`: models are called while the journal is asked whether the generation is this process's. Should it not be,
    which only a lost process or a changed set of replicas can bring about, the call was in vain.
    """

    def __init__(
        self,
        journal: Journal,
        catalog: Catalog,
        *,
        wires: Mapping[str, Wire] | None = None,
        max_concurrent: int = MAX_CONCURRENT,
        beat: float = BEAT,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        breakers: SharedBreakers | None = None,
        eager: bool = False,
    ) -> None:
        self.writer = uuid.uuid4().hex
        self._journal, self._catalog, self._max_concurrent = journal, catalog, max_concurrent
        self._wires: Mapping[str, Wire] = wires or {
            "openai": OpenAIWire(HttpPool(observe)),
            "scripted": ScriptedWire(),
        }
        self.counting = Counting()
        self.policies = Composed(self._wires, self.counting, breakers, sleep, monotonic)
        self.told: Callable[[Outcome], None] = lambda outcome: None  # hears of each generation's end once
        self.failing: Callable[[], None] = lambda: None  # called before a failure is told to anyone
        self.opens: Callable[[Catalog], None] = lambda catalog: None  # opens the sealed keys of another catalog
        self._interval, self._eager = beat, eager
        self._running: dict[Name, tuple[Generation, asyncio.Task[Outcome]]] = {}
        self._finished: OrderedDict[Name, tuple[float, Outcome]] = OrderedDict()
        self._sealing: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def unhealthy(self) -> frozenset[str]:
        """`domain.ports.Health`, of this replica and of what others told it."""
        return self.policies.circuits.unhealthy()

    @property
    def running(self) -> int:
        """How many generations run now."""
        return len(self._running)

    async def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Use another catalog for new generations; raises pydantic's ValidationError and keeps the old one."""
        if user_config is not None:
            catalog = parse_catalog(user_config)
            places = {model.tokenizer for provider in catalog.providers for model in provider.models}
            await asyncio.to_thread(self.counting.load, [place for place in places if place is not None])
            self.opens(catalog)
            self._catalog = catalog

    async def check_health(self) -> None:
        """Raises `Unavailable` once closed; a provider's or the journal's failure is not this replica's."""
        if self._closed:
            raise Unavailable("this replica has been closed")

    async def generate(self, request: GenerationRequest) -> Outcome:
        """Start or join the generation of this name and wait for its end; `elsewhere` if another process holds it.

        Raises `Overloaded` if too many are running or waiting for the model, and `Unavailable` if this replica closes
        before the end.
        """
        name = (request.tenant, request.name)
        if name in self._running:
            _, task = self._running[name]
        elif (kept := self._finished.get(name)) is not None and kept[0] > time.monotonic():
            return kept[1]
        elif request.join:
            return Outcome("elsewhere")
        else:
            task = self._start(name, request)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable("the replica that ran this generation has been closed") from None
            raise

    async def cancel(self, request: GenerationRequest) -> None:
        """Close the provider's stream of this generation; a name that does not run here is ignored."""
        if entry := self._running.get((request.tenant, request.name)):
            entry[0].cancel()

    async def close(self) -> None:
        """Abandon what still runs, unsealed, so that the turns' owners see it die; give all connections back."""
        self._closed = True
        tasks: list[asyncio.Task[Any]] = [task for _, task in self._running.values()]
        if self._beating is not None:
            tasks.append(self._beating)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._sealing, return_exceptions=True)
        await self.policies.close()
        for wire in self._wires.values():
            await wire.close()

    def _start(self, name: Name, request: GenerationRequest) -> asyncio.Task[Outcome]:
        if self._closed:
            raise Unavailable("this replica has been closed")
        if len(self._running) >= self._max_concurrent:
            raise Overloaded("too many generations are running")
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="beat")
        recording = Recording(self._journal, request, self.writer)
        generation = Generation(request, self._catalog, self.policies, recording, self.counting.attempt)
        apart = contextvars.Context()  # Serve cancels what a call started in its own context
        apart.run(TENANT.set, request.tenant)
        task = asyncio.create_task(self._run(name, request, generation), name=request.name, context=apart)
        self._running[name] = (generation, task)
        return task

    async def _run(self, name: Name, request: GenerationRequest, generation: Generation) -> Outcome:
        recording = generation.recording
        try:
            if not self._eager and not await recording.claim():
                return Outcome("elsewhere")  # not kept: its other process may die, and this one be asked again
            writing = asyncio.create_task(
                self._record(recording, asyncio.current_task()), name=f"{request.name} journal"
            )
            try:
                outcome = await generation.run()
                recording.end()
                await writing
                if outcome.ending == "failed":
                    self.failing()
            except asyncio.CancelledError:
                if not recording.refused:
                    raise
                return Outcome("elsewhere")
            finally:
                writing.cancel()
            outcome = replace(
                outcome,
                deltas=tuple(recording.deltas),
                models=tuple(recording.models),
                unanswered=recording.unanswered,
            )
            if request.kept and outcome.calls_tools:
                await recording.seal(outcome)  # the next generation of this attempt writes behind it
            else:
                self._seal(recording, outcome)
            self._keep(name, outcome)
            self.told(outcome)
            return outcome
        finally:
            del self._running[name]

    async def _record(self, recording: Recording, generating: asyncio.Task[Any] | None) -> None:
        if self._eager and not await recording.claim() and generating is not None:
            generating.cancel()
        else:
            await recording.run()

    def _seal(self, recording: Recording, outcome: Outcome) -> None:
        """Beside the answer to whoever waits: the seal is for an owner that must find the end without it."""
        sealing = asyncio.create_task(recording.seal(outcome), name="seal")
        self._sealing.add(sealing)
        sealing.add_done_callback(self._sealing.discard)

    def _keep(self, name: Name, outcome: Outcome) -> None:
        self._finished[name] = (time.monotonic() + KEPT, outcome)
        if len(self._finished) > MAX_KEPT:
            self._finished.popitem(last=False)

    async def _beat(self) -> None:
        """Tell the journal of generations that have nothing to say at the moment; forget old outcomes."""
        while True:
            await asyncio.sleep(self._interval)
            now = time.monotonic()
            while self._finished and next(iter(self._finished.values()))[0] <= now:
                self._finished.popitem(last=False)
            quiet = [
                generation.request
                for generation, _ in self._running.values()
                if generation.recording.quiet_since(now - self._interval)
            ]
            if quiet:
                try:
                    await self._journal.beat(quiet, self.writer)
                except Exception as error:  # the next beat may succeed
                    log.warning("no heartbeat for %d generations: %r", len(quiet), error)
