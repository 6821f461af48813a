"""A deployment of mock replicas under a trace: events in order of time, no clock, the same result each time."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.serve.config import AutoscalingConfig

from benchmarks.autoscaling.autoscaler import Autoscaler, Clock, simulated_time
from benchmarks.autoscaling.models import MockModel
from benchmarks.autoscaling.replica import Job, Replica
from benchmarks.autoscaling.trace import Arrival
from deployments.autoscaling import CACHE, RUNNING, WAITING

DECIDE_EVERY = 1.0  # seconds; Serve's controller decides ten times as often, which changes no delay here


class Simulation:
    """One run. Afterwards `jobs` hold their times, and the other attributes what it took to serve them."""

    def __init__(
        self, model: MockModel, config: AutoscalingConfig, max_ongoing: int, arrivals: Sequence[Arrival], seed: int
    ) -> None:
        self.model, self._config, self._max_ongoing = model, config, max_ongoing
        self._chance = random.Random(seed)
        self.jobs = [
            Job(one.at, model.prompt_tokens(one.prompt), one.answer, self._chance.random()) for one in arrivals
        ]
        self.ends = arrivals[-1].at + model.silence_s
        self.replica_seconds, self.peak, self.starts, self.cold_starts = 0.0, 0, 0, 0
        self._autoscaler, self._clock = Autoscaler(config), Clock()
        self._replicas: list[Replica] = []
        self._running: list[Replica] = []
        self._queue: deque[Job] = deque()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = self._target = self._left = 0

    def run(self) -> "Simulation":
        """Until the last request is answered, and through the silence after it."""
        self._target = self._config.initial_replicas or self._config.min_replicas
        for _ in range(self._target):
            self._start(0.0, ready_at=0.0)
        for event, every in (
            (self._record, self._autoscaler.record_every),
            (self._send, self._config.metrics_interval_s),
            (self._decide, DECIDE_EVERY),
        ):
            self._at(every, event, every)
        self._left = len(self.jobs)
        with simulated_time(self._clock):
            arriving = iter(self.jobs)
            job = next(arriving, None)
            while self._left or self._clock.now < self.ends:
                if job is not None and job.arrived <= self._events[0][0]:
                    self._clock.now = job.arrived
                    self._arrive(job)
                    job = next(arriving, None)
                else:
                    self._clock.now, _, event, arguments = heapq.heappop(self._events)
                    event(*arguments)
        for replica in self._replicas:
            self._account(replica)
        return self

    def _at(self, when: float, event: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, event, arguments))

    # Requests.

    def _arrive(self, job: Job) -> None:
        replica = self._route(job)
        if replica is not None:
            self._give(replica, job)
            return
        self._queue.append(job)
        if not self._running:  # a handle that has no replica to send to tells the controller at once
            self._measure()
            self._autoscaler.requests.send(self._clock.now)

    def _route(self, job: Job) -> Replica | None:
        running = self._running
        if not running:
            return None
        if self.model.sessions:
            chosen = running[int(job.session * len(running))]
        else:
            chosen = min(self._chance.choices(running, k=2), key=lambda replica: replica.accepted)
            if chosen.accepted >= self._max_ongoing:
                chosen = min(running, key=lambda replica: replica.accepted)
        return chosen if chosen.accepted < self._max_ongoing else None

    def _give(self, replica: Replica, job: Job) -> None:
        replica.accept(job)
        self._go_on(replica)

    def _go_on(self, replica: Replica) -> None:
        done = replica.begin(self._clock.now)
        if done is not None:
            self._at(done, self._grouped, replica)

    def _grouped(self, replica: Replica) -> None:
        self._settle(replica, replica.grouped(self._clock.now))

    def _ended(self, replica: Replica, changed: int) -> None:
        if changed == replica.changed:
            self._settle(replica, replica.ended(self._clock.now))

    def _settle(self, replica: Replica, over: list[Job]) -> None:
        self._left -= len(over)
        if replica.draining and not replica.accepted:
            self._stop(replica)
            return
        if over:
            self._assign()
        self._go_on(replica)
        end = replica.next_end()
        if end is not None:
            self._at(end, self._ended, replica, replica.changed)

    def _assign(self) -> None:
        while self._queue and (replica := self._route(self._queue[0])) is not None:
            self._give(replica, self._queue.popleft())

    # Replicas.

    def _start(self, now: float, ready_at: float) -> None:
        self.starts += 1
        replica = Replica(self.starts, self.model, now, ready_at)
        self._replicas.append(replica)
        self.peak = max(self.peak, len(self._replicas))
        if ready_at <= now:
            self._running.append(replica)
        else:
            self._at(ready_at, self._ready, replica)

    def _ready(self, replica: Replica) -> None:
        if not replica.draining:
            self._running.append(replica)
            self._assign()

    def _stop(self, replica: Replica) -> None:
        self._account(replica)
        self._replicas.remove(replica)

    def _account(self, replica: Replica) -> None:
        """A replica costs from the moment it is wanted until it is gone, as its node does."""
        self.replica_seconds += max(0.0, min(self._clock.now, self.ends) - replica.wanted_at)

    def _scale(self, target: int) -> None:
        kept = [replica for replica in self._replicas if not replica.draining]
        if not kept and target:
            self.cold_starts += 1
        for _ in range(target - len(kept)):
            self._start(self._clock.now, self._clock.now + self.model.start_s)
        kept.sort(key=lambda replica: (replica.ready_at <= self._clock.now, replica.accepted, -replica.number))
        for replica in kept[: max(0, len(kept) - target)]:  # first those that do not run yet, then the least busy
            replica.draining = True
            if replica in self._running:
                self._running.remove(replica)
            if not replica.accepted:
                self._stop(replica)

    # The controller.

    def _record(self, every: float) -> None:
        self._measure()
        self._at(self._clock.now + every, self._record, every)

    def _measure(self) -> None:
        now = self._clock.now
        self._autoscaler.requests.take(
            now, {"queued": len(self._queue), **{one.number: one.accepted for one in self._running}}
        )
        for one in self._running:
            told = {RUNNING: one.running, WAITING: len(one.waiting), CACHE: one.cache_usage}
            self._autoscaler.custom.take(now, {(name, one.number): value for name, value in told.items()})

    def _send(self, every: float) -> None:
        self._autoscaler.requests.send(self._clock.now)
        self._autoscaler.custom.send(self._clock.now)
        self._at(self._clock.now + every, self._send, every)

    def _decide(self, every: float) -> None:
        running = [one.number for one in self._running]
        self._target = self._autoscaler.decide(self._clock.now, self._target, running)
        self._scale(self._target)
        self._at(self._clock.now + every, self._decide, every)
