"""Learns providers' rate limits from their answers, and says how long the next call should wait, before a refusal.

Headers: https://platform.openai.com/docs/guides/rate-limits (`x-ratelimit-remaining-requests`, `-reset-requests` as
`6m0s`), https://docs.anthropic.com/en/api/rate-limits (`anthropic-ratelimit-requests-remaining`, `-reset` as RFC 3339),
and Retry-After.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deployments.policies import name_of
from deployments.providers.http import asked_delay
from domain.model import Route

RESERVE = 0.1  # of a limit: below it, calls are spaced so that what is left lasts until the reset
LONGEST = 3600.0  # seconds that a provider can stop us
MOST_MODELS = 4096
KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(slots=True)
class Budget:
    """What is left of one limit until `reset` (monotonic seconds), less what was begun since that was told."""

    limit: float
    remaining: float
    reset: float

    def pause(self, cost: float, since: float, now: float) -> float:
        """Seconds until a call of this cost should begin, where the last one began `since` seconds ago."""
        left = self.reset - now
        if left <= 0 or self.remaining - cost >= RESERVE * self.limit:
            return 0.0
        if self.remaining < cost:
            return left
        return max(left * cost / self.remaining - since, 0.0)


@dataclass(slots=True)
class Limits:
    """Of one model. `blocked`: monotonic seconds until which the provider wants no call."""

    blocked: float = 0.0
    began: float = float("-inf")
    budgets: dict[str, Budget] = field(default_factory=dict)


class RateLimits:
    """The limits of all models, by `provider/model`. `paused` is called with a model's route for each new block, and
    before it `on_block` with its name."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._limits: OrderedDict[str, Limits] = OrderedDict()
        self.paused: Callable[[Route], None] = lambda route: None
        self.on_block: Callable[[str], None] = lambda name: None

    def learn(self, route: Route, status: int, headers: Mapping[str, str]) -> None:
        """What the head of an answer says."""
        now, name = self._monotonic(), name_of(route)
        budgets = budgets_of(headers, now, self._wall())
        after = asked_delay(headers) if status in (429, 503, 529) else None
        if not budgets and after is None:
            return
        limits = self._limits.setdefault(name, Limits())
        self._limits.move_to_end(name)
        if len(self._limits) > MOST_MODELS:
            self._limits.popitem(last=False)
        limits.budgets |= budgets
        if after is not None:
            limits.blocked = max(limits.blocked, now + min(after, LONGEST))
            self.on_block(name)
            self.paused(route)

    def blocked(self, route: Route) -> float:
        """Seconds for which the provider wants no call of this model."""
        limits = self._limits.get(name_of(route))
        return 0.0 if limits is None else max(limits.blocked - self._monotonic(), 0.0)

    def pause(self, route: Route, tokens: float) -> float:
        """Seconds until a call of so many tokens should begin."""
        limits = self._limits.get(name_of(route))
        if limits is None:
            return 0.0
        now = self._monotonic()
        pauses = [
            budget.pause(1.0 if kind == "requests" else tokens, now - limits.began, now)
            for kind, budget in limits.budgets.items()
        ]
        return max(limits.blocked - now, *pauses, 0.0)

    def begin(self, route: Route, tokens: float) -> None:
        """A call begins: it will use its part of what is left."""
        limits = self._limits.get(name_of(route))
        if limits is None:
            return
        limits.began = self._monotonic()
        for kind, budget in limits.budgets.items():
            budget.remaining = max(budget.remaining - (1.0 if kind == "requests" else tokens), 0.0)


def budgets_of(headers: Mapping[str, str], now: float, wall: float) -> dict[str, Budget]:
    """The limits that an answer's headers tell of; what cannot be read is left out."""
    found = {}
    for kind in KINDS:
        remaining, limit, reset = (
            headers.get(f"x-ratelimit-{what}-{kind}") or headers.get(f"anthropic-ratelimit-{kind}-{what}")
            for what in ("remaining", "limit", "reset")
        )
        left = seconds_of(reset, wall)
        if remaining is None or left is None:
            continue
        try:
            rest = float(remaining)
            found[kind] = Budget(float(limit or rest), rest, now + min(left, LONGEST))
        except ValueError:
            continue
    return found


def seconds_of(reset: str | None, wall: float) -> float | None:
    """Seconds from now: `1s`, `6m0s`, `20ms`, a number, or a time (RFC 3339); None for anything else."""
    if not reset:
        return None
    if (parts := _PART.findall(reset)) and "".join(number + unit for number, unit in parts) == reset:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return max(float(reset), 0.0)
    except ValueError:
        pass
    try:
        return max(datetime.fromisoformat(reset).timestamp() - wall, 0.0)
    except ValueError:
        return None
