"""One training, from its claim to its end."""

import asyncio
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from deployments import freed_memory
from deployments.encoding import Encoding, Stopped
from deployments.held_out import better, held_out
from deployments.intent_classifier import Embeds
from deployments.understanding import Head, Progress, TunedHead, Tuning, train_any
from deployments.understanding.tail import Tail
from domain.embedding import EmbedderInfo
from domain.errors import BrainError, Fenced, NotTunable, Retryable
from domain.intents import Claim, Effort, NewHead, TrainingEffort, TrainingRequest

log = logging.getLogger("brain.intents")

LEASE, RENEW = 6.0, 1.5  # seconds
R = TypeVar("R")
Load = Callable[[], Tail]
Layers = Callable[[str], Load | None]


class Jobs(Protocol):
    """Trainings as storage keeps them. Every call with a lost claim raises `Fenced`."""

    def claim(self, trainer: uuid.UUID, lease: float) -> Awaitable[tuple[Claim, TrainingRequest] | None]: ...

    def renew(self, claim: Claim, lease: float, progress: float, phase: str) -> Awaitable[None]: ...

    def complete(self, claim: Claim, metrics: dict[str, Any]) -> Awaitable[None]: ...

    def fail(self, claim: Claim, error: dict[str, Any]) -> Awaitable[None]: ...

    def give_back(self, claim: Claim) -> Awaitable[None]: ...

    def another_waits(self, claim: Claim) -> Awaitable[bool]: ...


class Made(Protocol):
    @property
    def version(self) -> int: ...
    @property
    def embedder(self) -> str: ...


class Heads(Protocol):
    """Where heads are kept. A training makes one of each effort, however often it is begun."""

    def store(self, claim: Claim, new: NewHead) -> Awaitable[int]: ...

    def describe(self, claim: Claim, effort: Effort, metrics: dict[str, Any]) -> Awaitable[None]: ...

    def of_training(self, claim: Claim, effort: Effort) -> Awaitable[Made | None]: ...


class Lanes:
    """A thread for what takes seconds, and one for what takes minutes, which `slow` lends to one job at a time."""

    def __init__(self, nice: int) -> None:
        self.quickly = ThreadPoolExecutor(1, "trainer", os.nice, (nice,))
        self.slowly = ThreadPoolExecutor(1, "slow trainer", os.nice, (nice,))
        self.slow = asyncio.Lock()

    def close(self) -> None:
        for thread in (self.quickly, self.slowly):
            thread.shutdown(wait=False, cancel_futures=True)


class TrainingJob:
    """`usable`: set when its first head is in use, or when it has ended."""

    def __init__(
        self,
        jobs: Jobs,
        heads: Heads,
        embedder: Embeds,
        tail_of: Layers,
        lanes: Lanes,
        claim: Claim,
        request: TrainingRequest,
    ) -> None:
        self._jobs, self._heads, self._embedder, self._lanes = jobs, heads, embedder, lanes
        self._tail_of, self._thread = tail_of, lanes.quickly
        self._tuning: Tuning | None = None
        self._claim, self._request = claim, request
        self._began = time.monotonic()
        self._progress, self._phase = 0.0, "preparing"
        self._stopped = False
        self.usable, self._superseded = asyncio.Event(), asyncio.Event()
        self._changed = asyncio.Event()  # its phase, in other than the stage

    async def run(self) -> None:
        renewing = asyncio.create_task(self._renew())
        work = asyncio.create_task(self._work())
        try:
            await asyncio.wait((renewing, work), return_when=asyncio.FIRST_COMPLETED)
            await (work if work.done() else renewing)
        except asyncio.CancelledError:
            renewing.cancel()  # and heard to its end: what is given back must not be renewed behind that
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(BrainError):
                await self._jobs.give_back(self._claim)
            raise
        except Fenced:
            log.warning("a training was taken over by another trainer")
        except Retryable as error:
            log.warning("a training waits for what it needs, and is begun again: %s", error)
        except BrainError as error:
            await self._jobs.fail(self._claim, _error(error))
        except Exception as error:
            log.exception("a training failed")
            message = f"the training failed: {type(error).__name__}"
            told = {"message": message, "type": "internal_error", "param": None, "code": "training_failed"}
            await self._jobs.fail(self._claim, told)
        finally:
            self._stopped = True  # heard by the thread at its next step
            for task in (renewing, work):
                task.cancel()
            await asyncio.gather(renewing, work, return_exceptions=True)

    async def _renew(self) -> None:
        """Raises `Fenced` where the job is lost. Tells of another phase at once, of mere progress with the next."""
        while True:
            self._changed.clear()
            try:
                await self._jobs.renew(self._claim, LEASE, min(self._progress, 0.99), self._phase)
                if self.usable.is_set() and await self._jobs.another_waits(self._claim):
                    self._superseded.set()
            except Fenced:
                raise
            except BrainError as error:
                log.debug("a training's lease was not renewed: %s", error)
            except Exception:  # the next try may go well; else another trainer has the job soon
                log.exception("a training's lease was not renewed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RENEW)

    async def _work(self) -> None:
        info = await self._embedder.describe()
        tuned = self._request.effort == "tuned"
        load = self._tail_of(info.name) if tuned else None
        if tuned and load is None:
            raise NotTunable(f"the embedder {info.name} has no layers that can be tuned; the packaged model has")
        encode = self._encoding(info)
        if not await self._made("first", encode):
            model = await self._train("first", encode, 0.0, 0.3)
            await self._store("first", encode, model, self._metrics())
        if self._request.effort == "first":
            measured = await self._measure_first(encode)
            await self._complete({"first": measured, "kept": "first"})
            return
        self.usable.set()
        self._tell("the first head is in use, and the rest waits for its turn")
        if tuned or self._lanes.slow.locked():  # a job that waits holds no vectors
            encode = self._encoding(info, stated=tuned)
        await self._complete(await self._rest(encode, load))

    async def _rest(self, encode: Encoding, load: Load | None) -> dict[str, Any]:
        """As `_improved`, whatever comes first: where another training of the tenant waits, its first head is wanted at
        once, and takes the place of all that this one might still make."""
        improving = asyncio.create_task(self._in_turn(encode, load))
        superseded = asyncio.create_task(self._superseded.wait())
        try:
            await asyncio.wait((improving, superseded), return_when=asyncio.FIRST_COMPLETED)
            if improving.done():
                return await improving
        finally:
            self._stopped = True
            for task in (improving, superseded):
                task.cancel()
            await asyncio.gather(improving, superseded, return_exceptions=True)
        made = await self._made("best", encode)
        return {"kept": self._request.effort if made else "first", "left_out": "another training waited"}

    async def _in_turn(self, encode: Encoding, load: Load | None) -> dict[str, Any]:
        async with self._lanes.slow:
            self._thread = self._lanes.slowly
            try:
                if load is not None:  # not before: many may wait, and layers take 21 MB
                    self._tuning = Tuning(encode.states, await self._in_thread(load))
                return await self._improved(encode)
            finally:
                self._tuning = None
                self._lanes.slowly.submit(freed_memory.give_back)  # of a tuning most of a gigabyte

    async def _improved(self, encode: Encoding) -> dict[str, Any]:
        """What was measured, and which head was kept."""
        measured, wanted = await self._measure_first(encode), self._request.effort
        kept: dict[str, Any] = {"first": measured, "kept": "first"}
        if await self._made("best", encode):
            return {**kept, "kept": wanted}
        kept[wanted] = again = await self._measure(wanted, encode, 0.4, 0.8)
        if better(measured, again):
            model = await self._train(wanted, encode, 0.8, 1.0)
            metrics = {**self._metrics(), "held_out": again, "tuned": wanted == "tuned"}
            await self._store("best", encode, model, metrics)
            kept["kept"] = wanted
        return kept

    async def _measure_first(self, encode: Encoding) -> dict[str, float] | None:
        measured = await self._measure("first", encode, 0.3, 0.4)
        await self._heads.describe(self._claim, "first", {"held_out": measured})
        return measured

    async def _complete(self, held_out: dict[str, Any]) -> None:
        await self._jobs.complete(self._claim, {**_counted(self._request), "held_out": held_out})

    def _encoding(self, info: EmbedderInfo, *, stated: bool = False) -> Encoding:
        name = f"{info.name}@{info.revision}"
        return Encoding(self._embedder, name, info.dimensions, lambda: self._stopped, stated=stated)

    def _metrics(self) -> dict[str, Any]:
        return {**_counted(self._request), "seconds": round(time.monotonic() - self._began, 3)}

    async def _made(self, effort: Effort, encode: Encoding) -> bool:
        """Whether an earlier trainer made this head of the job."""
        found = await self._heads.of_training(self._claim, effort)
        return found is not None and found.embedder == encode.embedder

    async def _train(self, effort: TrainingEffort, encode: Encoding, start: float, end: float) -> Head | TunedHead:
        request, told = self._request, self._told(f"the {effort} head", start, end)
        return await self._in_thread(
            lambda: train_any(
                effort,
                request.examples,
                encode,
                self._tuning,
                embedder=encode.embedder,
                descriptions=request.descriptions,
                validation=request.validation,
                progress=told,
            )
        )

    async def _measure(
        self, effort: TrainingEffort, encode: Encoding, start: float, end: float
    ) -> dict[str, float] | None:
        told = self._told(f"measuring the {effort} head", start, end)
        return await self._in_thread(
            lambda: held_out(self._request, effort, encode, told, tuning=self._tuning, embedder=encode.embedder)
        )

    async def _store(self, effort: Effort, encode: Encoding, model: Head | TunedHead, metrics: dict[str, Any]) -> None:
        artefact = await self._in_thread(model.to_bytes)  # compressed, which takes seconds where layers are in it
        info = await self._embedder.describe()
        if f"{info.name}@{info.revision}" != encode.embedder:
            raise Retryable("the embedder was replaced meanwhile")
        definitions = {name: dict(one) for name, one in self._request.definitions.items()}
        await self._heads.store(
            self._claim,
            NewHead(encode.embedder, artefact, _fingerprint(self._request), effort, definitions, metrics),
        )

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _tell(self, phase: str) -> None:
        """Begin another phase; a job has five at most."""
        self._phase = phase
        self._changed.set()

    def _told(self, what: str, start: float, end: float) -> Progress:
        """Hears, in the thread, how far a part of the work is that takes the job from `start` to `end`. It raises
        `Stopped` where nobody wants the rest."""
        self._tell(what)

        def told(share: float, stage: str) -> None:
            if self._stopped:
                raise Stopped
            self._phase = f"{what}: {stage}"
            self._progress = max(self._progress, start + (end - start) * share)

        return told


def _counted(request: TrainingRequest) -> dict[str, Any]:
    return {"examples": len(request.examples), "intents": len({one.intent for one in request.examples})}


def _fingerprint(request: TrainingRequest) -> bytes:
    """What a head of this request depends on, besides the embedder."""
    told: Sequence[Any] = (
        sorted((one.intent, one.text) for one in request.examples),
        sorted(request.descriptions.items()),
    )
    return hashlib.sha256(repr(told).encode()).digest()


def _error(error: BrainError) -> dict[str, Any]:
    return {"message": str(error), "type": error.type, "param": getattr(error, "param", None), "code": error.code}
