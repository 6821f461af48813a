"""Trains tenants' heads in the background: a usable one within seconds, then as good a one as it gets."""

import asyncio
import contextvars
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from deployments.encoding import Encoding, Stopped
from deployments.held_out import better, held_out
from deployments.intent_classifier import Embeds
from deployments.packaged_tail import tail_of
from deployments.understanding import Head, Progress, TunedHead, Tuning, read_head, train_any
from deployments.understanding.tail import Tail
from domain.errors import BrainError, Fenced, NotTunable, Retryable
from domain.intents import Claim, Effort, NewHead, TrainingEffort, TrainingRequest

log = logging.getLogger("brain.intents")

LEASE, RENEW = 6.0, 1.5  # seconds
POLL = 1.0  # seconds between looks for work that nobody told of
NICE = 15
R = TypeVar("R")


class Jobs(Protocol):
    """Trainings as storage keeps them. Every call with a lost claim raises `Fenced`."""

    def claim(self, trainer: uuid.UUID, lease: float) -> Awaitable[tuple[Claim, TrainingRequest] | None]: ...

    def renew(self, claim: Claim, lease: float, progress: float, phase: str) -> Awaitable[None]: ...

    def complete(self, claim: Claim, metrics: dict[str, Any]) -> Awaitable[None]: ...

    def fail(self, claim: Claim, error: dict[str, Any]) -> Awaitable[None]: ...

    def give_back(self, claim: Claim) -> Awaitable[None]: ...


class Made(Protocol):
    @property
    def version(self) -> int: ...
    @property
    def embedder(self) -> str: ...
    @property
    def artefact(self) -> bytes: ...


class Heads(Protocol):
    """Where heads are kept. A training makes one of each effort, however often it is begun."""

    def store(self, claim: Claim, new: NewHead) -> Awaitable[int]: ...

    def describe(self, claim: Claim, effort: Effort, metrics: dict[str, Any]) -> Awaitable[None]: ...

    def of_training(self, claim: Claim, effort: Effort) -> Awaitable[Made | None]: ...


class IntentTrainer:
    """Claims trainings and does one at a time, in a thread that yields to everything else on the machine.

    `tail_of`: an embedder's name → the last layers of its model, None where it has none that can be tuned.

    Whatever kills it, another trainer begins the job again `LEASE` seconds later; heads that it made by then stand.
    """

    def __init__(
        self,
        jobs: Jobs,
        heads: Heads,
        embedder: Embeds,
        *,
        tail_of: Callable[[str], Tail | None] = tail_of,
        poll: float = POLL,
        nice: int = NICE,
    ) -> None:
        self._jobs, self._heads, self._embedder, self._tail_of = jobs, heads, embedder, tail_of
        self._id, self._poll = uuid.uuid4(), poll
        self._woken = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "trainer", os.nice, (nice,))
        self._running: asyncio.Task[None] | None = None
        self.busy = False

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), context=contextvars.Context())

    def wake(self) -> None:
        """A training waits."""
        self._woken.set()

    async def close(self) -> None:
        """Stop; a job that is under way is given back."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                found = await self._jobs.claim(self._id, LEASE)
                if found is not None:
                    self.busy = True
                    await _Training(self._jobs, self._heads, self._embedder, self._tail_of, self._thread, *found).run()
                    continue
            except BrainError as error:
                log.debug("no training can be claimed now: %s", error)
            except Exception:
                log.exception("a training was not told how it ended")
            finally:
                self.busy = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._poll)


class _Training:
    """One job, from its claim to its end."""

    def __init__(
        self,
        jobs: Jobs,
        heads: Heads,
        embedder: Embeds,
        tail_of: Callable[[str], Tail | None],
        thread: ThreadPoolExecutor,
        claim: Claim,
        request: TrainingRequest,
    ) -> None:
        self._jobs, self._heads, self._embedder, self._thread = jobs, heads, embedder, thread
        self._tail_of = tail_of
        self._tuning: Tuning | None = None
        self._claim, self._request = claim, request
        self._progress, self._phase = 0.0, "preparing"
        self._stopped = False

    async def run(self) -> None:
        renewing = asyncio.create_task(self._renew())
        work = asyncio.create_task(self._work())
        try:
            await asyncio.wait((renewing, work), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        except asyncio.CancelledError:
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
        """Ends where the job is lost."""
        while True:
            try:
                await self._jobs.renew(self._claim, LEASE, min(self._progress, 0.99), self._phase)
            except Fenced:
                return
            except BrainError as error:
                log.debug("a training's lease was not renewed: %s", error)
            await asyncio.sleep(RENEW)

    async def _work(self) -> None:
        request, began = self._request, time.monotonic()
        info = await self._embedder.describe()
        tuned = request.effort == "tuned"
        base = await self._in_thread(lambda: self._tail_of(info.name)) if tuned else None
        if tuned and base is None:
            raise NotTunable(f"the embedder {info.name} has no layers that can be tuned; the packaged model has")
        encode = Encoding(
            self._embedder, f"{info.name}@{info.revision}", info.dimensions, lambda: self._stopped, stated=tuned
        )
        self._tuning = None if base is None else Tuning(encode.states, base)
        first = await self._made("first", encode)
        if first is None:
            model = await self._train("first", encode, 0.0, 0.3)
            metrics = {**_counted(request), "seconds": round(time.monotonic() - began, 3)}
            await self._store("first", encode, model, metrics)
        else:
            model = first
        measured = await self._measure("first", encode, 0.3, 0.4)
        await self._heads.describe(self._claim, "first", {"held_out": measured})
        kept: dict[str, Any] = {"first": measured, "kept": "first"}
        wanted = request.effort
        if wanted != "first" and await self._made("best", encode) is None:
            again = await self._measure(wanted, encode, 0.4, 0.8)
            kept[wanted] = again
            if better(measured, again):
                model = await self._train(wanted, encode, 0.8, 1.0)
                metrics = {**_counted(request), "seconds": round(time.monotonic() - began, 3), "held_out": again}
                await self._store("best", encode, model, {**metrics, "tuned": tuned})
                kept["kept"] = wanted
        elif wanted != "first":
            kept["kept"] = wanted
        await self._jobs.complete(self._claim, {**_counted(request), "held_out": kept})

    async def _made(self, effort: Effort, encode: Encoding) -> Head | TunedHead | None:
        """What an earlier trainer made of this job."""
        found = await self._heads.of_training(self._claim, effort)
        return None if found is None or found.embedder != encode.embedder else read_head(found.artefact)

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
        info = await self._embedder.describe()
        if f"{info.name}@{info.revision}" != encode.embedder:
            raise Retryable("the embedder was replaced meanwhile")
        definitions = {name: dict(one) for name, one in self._request.definitions.items()}
        await self._heads.store(
            self._claim,
            NewHead(encode.embedder, model.to_bytes(), _fingerprint(self._request), effort, definitions, metrics),
        )

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _told(self, what: str, start: float, end: float) -> Progress:
        """Hears, in the thread, how far a part of the work is that takes the job from `start` to `end`. It raises
        `Stopped` where nobody wants the rest."""

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
