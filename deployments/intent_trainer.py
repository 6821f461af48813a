"""Trains tenants' heads in the background: a usable one within seconds, then as good a one as it gets."""

import asyncio
import contextvars
import logging
import uuid
from contextlib import suppress

from deployments.intent_classifier import Embeds
from deployments.packaged_tail import tail_of
from deployments.training_job import LEASE, Heads, Jobs, Lanes, Layers, TrainingJob
from domain.errors import BrainError
from domain.intents import Claim, TrainingRequest

log = logging.getLogger("brain.intents")

POLL = 1.0  # seconds between looks for work that nobody told of
NICE = 15
HELD = 32  # jobs at once: one whose first head is being made, and those that have theirs. More stay queued


class IntentTrainer:
    """Claims trainings and does them in two threads that yield to everything else on the machine: in one a tenant's
    first head, one after the other as they come, in the other what takes minutes, one job at a time. So nobody's first
    head waits for another one's best, unless HELD of them do.

    `tail_of`: an embedder's name → what loads the last layers of its model, None where it has none that can be tuned.

    Whatever kills it, another trainer begins the job again `LEASE` seconds later; heads that it made by then stand.
    """

    def __init__(
        self,
        jobs: Jobs,
        heads: Heads,
        embedder: Embeds,
        *,
        tail_of: Layers = tail_of,
        poll: float = POLL,
        nice: int = NICE,
    ) -> None:
        self._jobs, self._heads, self._embedder, self._tail_of = jobs, heads, embedder, tail_of
        self._id, self._poll = uuid.uuid4(), poll
        self._woken = asyncio.Event()
        self._lanes = Lanes(nice)
        self._held: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._held)

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), context=contextvars.Context())

    def wake(self) -> None:
        """A training waits."""
        self._woken.set()

    async def close(self) -> None:
        """Stop; jobs that are under way are given back."""
        tasks = [*self._held, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lanes.close()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                found = await self._jobs.claim(self._id, LEASE) if len(self._held) < HELD else None
                if found is not None:
                    await self._begin(*found)
                    continue
            except BrainError as error:
                log.debug("no training can be claimed now: %s", error)
            except Exception:
                log.exception("no training can be claimed now")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._poll)

    async def _begin(self, claim: Claim, request: TrainingRequest) -> None:
        """Until its first head is in use, or it has ended."""
        training = TrainingJob(self._jobs, self._heads, self._embedder, self._tail_of, self._lanes, claim, request)
        task = asyncio.create_task(_told_of(training))
        self._held.add(task)
        task.add_done_callback(self._ended)
        await training.usable.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._held.discard(task)
        self.wake()  # the tenant's next one may be claimed now


async def _told_of(training: TrainingJob) -> None:
    try:
        await training.run()
    except BrainError as error:
        log.debug("a training was not told how it ended: %s", error)
    except Exception:
        log.exception("a training was not told how it ended")
    finally:
        training.usable.set()
