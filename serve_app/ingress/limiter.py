"""Limits of tenants, users and keys at the edge of one replica: taken when a request comes, settled when it has ended.

While Redis is away this replica allows its share of each limit: never everything, and never nothing.
"""

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from domain.errors import Unavailable
from domain.limits import UNLIMITED, Limits, RateLimited, Rule, State, Taken, Use, rules_of
from domain.ports import TenantLimits
from domain.tenant import Caller
from serve_app.ingress import metrics
from storage.limits import LEASE, REPLICAS, RedisLimits
from storage.local_limits import LocalLimits

log = logging.getLogger("brain.limits")

EVERY, AWAY = LEASE / 3, 1.0  # seconds between renewals, and between looks whether Redis is back

Headers = list[tuple[bytes, bytes]]


class Unlimited:
    """`TenantLimits` of a service that limits nobody."""

    async def limits(self, tenant: str) -> Limits:
        return UNLIMITED


def _nobody_is_told(tenant: str, rule: Rule) -> None:
    """Of a refusal, where no events leave the service."""


class OfSettings:
    """`TenantLimits` out of tenants' settings: what `read` gives has `limits`."""

    def __init__(self, read: Callable[[str], Awaitable[Any]]) -> None:
        self._read = read

    async def limits(self, tenant: str) -> Limits:
        limits: Limits = (await self._read(tenant)).limits
        return limits


class Entry:
    """A request that was let in. `turn`: the one that it began, or may have; `headers`: what its answer tells.

    `shared`: it was taken where all replicas count. `handed_on`: something else than the request's end ends it.
    """

    def __init__(self, limiter: "Limiter", tenant: str, rules: Sequence[Rule]) -> None:
        self.id, self.tenant, self.rules = uuid.uuid4().hex, tenant, rules
        self.headers: Headers = []
        self.turn: str | None = None
        self.shared, self.handed_on = True, False
        self._limiter = limiter
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to give back or to correct."""
        return self._ended or all(rule.kind == "requests" for rule in self.rules)

    def begins(self, turn_id: str) -> None:
        """The request is, or may be, the turn of this id: that one's end is told by `Limiter.turn_ended`."""
        if not self.over:
            self.turn = turn_id
            self._limiter.turns[turn_id] = self

    def begins_none(self) -> None:
        if self.turn is not None:
            self._limiter.turns.pop(self.turn, None)
            self.turn = None

    def end(self, tokens: int | None) -> None:
        """It took so many tokens; None: as many as were taken for it. Only the first word counts."""
        if not self.over:
            self._ended = True
            self._limiter.settle(self, tokens)

    async def ended(self, tokens: int | None) -> None:
        """As `end`, and on its way to Redis: whoever hears of the end may come again at once, also to another replica.

        Redis has it long before a client could; its answer is not waited for.
        """
        if not self.over:
            self.end(tokens)
            await asyncio.sleep(0)


class Limiter:
    """The limits of one replica. `shared`: None where it is the only one. `live`: what has not ended; `turns`: the same
    by the turn that it is."""

    def __init__(
        self, tenants: TenantLimits, shared: RedisLimits | None = None, local: LocalLimits | None = None
    ) -> None:
        self.tenants, self.shared = tenants, shared
        self.told: Callable[[str, Rule], None] = _nobody_is_told
        self.local = local or LocalLimits()
        self.away = False
        self.live: dict[str, Entry] = {}
        self.turns: dict[str, Entry] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._name = uuid.uuid4().hex
        self._lost_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self, caller: Caller, use: Use, tokens: int, also: Sequence[Rule] = ()) -> Entry | None:
        """Let a request in. None where nothing limits it. `also`: rules beside the tenant's. Raises `RateLimited`."""
        limits = await self.tenants.limits(caller.tenant)
        if limits is UNLIMITED and not also:
            return None
        rules = [*also, *rules_of(limits, caller, use, tokens)]
        if not rules:
            return None
        entry = Entry(self, caller.tenant, rules)
        taken = await self._take(entry)
        entry.headers = headers_of(rules, taken.states)
        if taken.refused is not None:
            self.told(caller.tenant, rules[taken.refused])
            raise _refusal(rules[taken.refused], taken.states[taken.refused], entry.headers)
        if not entry.over:
            self.live[entry.id] = entry
        return entry

    async def turn_ended(self, turn_id: str, tokens: int | None) -> None:
        """Before this is told to anybody. Turns that nothing limits are none of its business."""
        entry = self.turns.get(turn_id)
        if entry is not None:
            await entry.ended(tokens)

    def settle(self, entry: Entry, tokens: int | None) -> None:
        self.live.pop(entry.id, None)
        entry.begins_none()
        taken = next((rule.cost for rule in entry.rules if rule.kind == "tokens"), 0)
        by = 0 if tokens is None else tokens - taken
        self.local.end(entry.id, entry.rules, 0 if entry.shared else by)
        if self.shared is not None and not self.away:
            settling = self._settled(self.shared.settling(entry.id, entry.rules, by if entry.shared else 0))
            task = asyncio.create_task(settling)
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settled(self, answer: Awaitable[Any]) -> None:
        try:
            await answer
        except Unavailable as error:
            self._lost(error)

    def start(self) -> None:
        if self.shared is not None:
            self._task = asyncio.create_task(self._renew(), name="limits")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.shared is not None:
            await self.shared.close()

    async def refresh(self) -> None:
        """Renew this replica's leases, and learn how many replicas there are. Raises `Unavailable`."""
        if self.shared is None:
            return
        held: dict[str, list[str]] = {}
        for entry in self.live.values():
            for rule in () if entry.over else entry.rules:
                if rule.kind == "turns":
                    held.setdefault(rule.bucket, []).append(entry.id)
        renewals = [self.shared.renew(bucket, ids) for bucket, ids in held.items()]
        replicas, *_ = await asyncio.gather(self.shared.renew(REPLICAS, [self._name]), *renewals)
        self.local.replicas = max(1, replicas)
        self.away = False

    async def _take(self, entry: Entry) -> Taken:
        if self.shared is not None and not self.away:
            try:
                taken = await self.shared.take(entry.id, entry.rules)
            except Unavailable as error:
                self._lost(error)
            else:
                if taken.refused is None:
                    self.local.hold(entry.id, entry.rules)
                return taken
        entry.shared = False
        return await self.local.take(entry.id, entry.rules)

    def _lost(self, error: Unavailable) -> None:
        if not self.away:
            log.warning("limits are this replica's share of them for the moment: %s", error)
            metrics.LIMITS_ALONE.inc()
        self.away = True
        self._lost_now.set()

    async def _renew(self) -> None:
        while True:
            self._lost_now.clear()
            try:
                await self.refresh()
            except Unavailable as error:
                self._lost(error)
            except Exception:
                log.exception("leases of turns cannot be renewed")
            if self.away:
                await asyncio.sleep(AWAY)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost_now.wait(), EVERY)


def headers_of(rules: Sequence[Rule], states: Sequence[State]) -> Headers:
    """Of the requests and of the tokens, that rule which leaves the least. Seconds are whole ones."""
    headers: Headers = []
    for kind in ("requests", "tokens"):
        of_kind = [(state, rule) for rule, state in zip(rules, states, strict=True) if rule.kind == kind]
        if of_kind:
            state, rule = min(of_kind, key=lambda one: (one[0].remaining, -one[0].seconds))
            values = (("limit", rule.limit), ("remaining", state.remaining), ("reset", math.ceil(state.seconds)))
            headers += [(f"x-ratelimit-{name}-{kind}".encode(), str(value).encode()) for name, value in values]
    return headers


def _refusal(rule: Rule, state: State, headers: Headers) -> RateLimited:
    metrics.LIMITED.labels(rule.subject, rule.kind).inc()
    seconds = max(1, math.ceil(state.seconds))
    error = RateLimited(f"{rule} is reached: try again in {seconds} s", seconds)
    error.headers = {name.decode(): value.decode() for name, value in headers}
    return error
