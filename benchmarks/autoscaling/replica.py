"""One mock replica: what it accepted, what it works on, when the next thing is done."""

import heapq
from collections import deque
from dataclasses import dataclass, field

from benchmarks.autoscaling.models import MockModel


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way; times in simulated seconds."""

    arrived: float
    prompt: int
    answer: int
    session: float
    first_at: float = -1.0
    done_at: float = -1.0


@dataclass(slots=True, eq=False)
class Replica:
    """A first-come queue before a group server, and then a processor that all running requests share.

    `changed` counts what happened to the shared processor: a time computed before the last change no longer holds.
    """

    number: int
    model: MockModel
    wanted_at: float
    ready_at: float
    draining: bool = False
    accepted: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    group: list[Job] = field(default_factory=list)
    shared: list[tuple[float, int, Job]] = field(default_factory=list)
    held: int = 0
    changed: int = 0
    _progress: float = 0.0
    _at: float = 0.0
    _order: int = 0

    @property
    def running(self) -> int:
        return len(self.group) + len(self.shared)

    @property
    def cache_usage(self) -> float:
        return self.held / self.model.cache

    def accept(self, job: Job) -> None:
        self.accepted += 1
        self.waiting.append(job)

    def begin(self, now: float) -> float | None:
        """Take the next group, if nothing is in the way; the time at which it is done."""
        if self.group or not self.waiting:
            return None
        model = self.model
        while self.waiting and len(self.group) < model.together and self.running < model.running:
            size = self.waiting[0].prompt + self.waiting[0].answer
            if self.held and self.held + size > model.cache:
                break
            self.held += size
            self.group.append(self.waiting.popleft())
        if not self.group:
            return None
        work = model.fixed_s + model.per_token_s * sum(job.prompt for job in self.group)
        return now + work / (model.speed(len(self.shared)) if self.shared else 1.0)

    def grouped(self, now: float) -> list[Job]:
        """The group is done: those that want an answer share the processor, the others are given back."""
        group, self.group = self.group, []
        self._move(now)
        over = []
        for job in group:
            job.first_at = now
            work = self.model.before_s + job.answer * self.model.answer_s
            if work:
                self._order += 1
                heapq.heappush(self.shared, (self._progress + work, self._order, job))
            else:
                over.append(self._end(job, now))
        return over

    def next_end(self) -> float | None:
        """When the first of those that share is done, if nothing changes."""
        if not self.shared:
            return None
        return self._at + max(0.0, self.shared[0][0] - self._progress) / self.model.speed(len(self.shared))

    def ended(self, now: float) -> list[Job]:
        """Those that are done now."""
        self._move(now)
        over = []
        while self.shared and self.shared[0][0] <= self._progress + 1e-9:
            over.append(self._end(heapq.heappop(self.shared)[2], now))
        return over

    def _move(self, now: float) -> None:
        if self.shared:
            self._progress += (now - self._at) * self.model.speed(len(self.shared))
        self._at = now
        self.changed += 1

    def _end(self, job: Job, now: float) -> Job:
        job.done_at = now
        self.accepted -= 1
        self.held -= job.prompt + job.answer
        return job
