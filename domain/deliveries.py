"""Delivering to webhooks and channels: what follows on an attempt, and what the work needs of the world.

The schedule is that of Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks, specification, "Retry
schedule"), cut off after a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from domain.channels import Channel, Result, Sent
from domain.errors import BrainError
from domain.message import Message

DeliveryStatus = Literal["waiting", "delivered", "failed", "skipped"]
Why = Literal["gone", "exhausted"]
DAY = 86_400.0  # seconds
DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)  # seconds before the second attempt, the third, …
LONGEST = 7 * DAY  # whatever the service missed: a delivery that was tried as often as in a day ends
OURS = (5.0, 60.0)  # seconds, at least and at most, until this service looks whether it can try by now
UNENDED = 3  # attempts in a row that nobody ended, until more of them are made only seldom
JITTER = 0.1
HELD = 40.0  # seconds that a lane is one sender's: more than an attempt may take
ANSWER = 500  # bytes of an answer that are kept

MOVES: dict[tuple[DeliveryStatus, Result | Literal["nothing", "over"]], DeliveryStatus] = {
    ("waiting", "taken"): "delivered",
    ("waiting", "later"): "waiting",
    ("waiting", "over"): "failed",
    ("waiting", "gone"): "failed",
    ("waiting", "nothing"): "skipped",
}
"""By what an attempt came to: `over` is `later` where the time is up, `nothing` that there is nothing left to tell."""


class IllegalDelivery(BrainError):
    """A delivery cannot make this move from the state it is in."""


@dataclass(frozen=True, slots=True)
class Retry:
    """`delays`: seconds between attempts, the last one again and again. `last`: seconds after the first attempt at
    which the last one is made, without those for which the service was away; `longest`: with them. `jitter`: the share
    by which a delay is longer or shorter."""

    delays: tuple[float, ...] = DELAYS
    last: float = DAY
    longest: float = LONGEST
    jitter: float = JITTER

    def delay(self, attempts: int, chance: float) -> float:
        """Seconds after this many attempts; `chance` in [0, 1)."""
        return self.delays[min(attempts, len(self.delays)) - 1] * self._spread(chance)

    def look(self, waited: float, chance: float) -> float:
        """Seconds until this service looks again whether it can try at all; `waited`: those since it last looked."""
        return min(max(OURS[0], 2 * waited), OURS[1]) * self._spread(chance)

    def over(self, tried: "Tried") -> bool:
        """Whether an attempt that ends now was the last one."""
        most = len(self.delays) + 2  # attempts, of a receiver that never answers
        return tried.elapsed >= self.last or (tried.wall >= self.longest and tried.attempts >= most)

    def _spread(self, chance: float) -> float:
        return 1 + self.jitter * (2 * chance - 1)


@dataclass(frozen=True, slots=True)
class Tried:
    """How a delivery was tried. `attempts`: with the present one. Seconds since the first began: `wall` all of them,
    `elapsed` those in which this service was there. `waited`: seconds since this service last looked whether it could
    try, and could not. `unended`: attempts directly before this one whose end nobody wrote down."""

    attempts: int
    elapsed: float
    wall: float
    waited: float = 0.0
    unended: int = 0

    def after(self, seconds: float) -> "Tried":
        return replace(self, elapsed=self.elapsed + seconds, wall=self.wall + seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wait`: seconds until the next attempt of one that still waits. `why`: perhaps nothing more is worth sending."""

    status: DeliveryStatus
    wait: float | None = None
    why: Why | None = None


def verdict(sent: Sent | None, tried: Tried, retry: Retry, chance: float) -> Verdict:
    """What follows on an attempt that ends now. `sent` None: there was nothing to tell any more."""
    if sent is None:
        return Verdict(move("waiting", "nothing"))
    if sent.result == "taken":
        return Verdict(move("waiting", "taken"))
    if sent.result == "gone":
        return Verdict(move("waiting", "gone"), why="gone")
    if sent.ours:
        return Verdict(move("waiting", "later"), retry.look(tried.waited, chance))
    if retry.over(tried):
        return Verdict(move("waiting", "over"), why="exhausted")
    wait = max(retry.delay(tried.attempts, chance), sent.after or 0.0)
    return Verdict(move("waiting", "later"), wait=min(wait, retry.last - tried.elapsed))


def lost(tried: Tried, retry: Retry) -> Verdict | None:
    """The end of a delivery whose attempts all break off, perhaps because it kills whoever makes them; the receiver
    need not know of it, so nothing else is given up."""
    if tried.unended < UNENDED or not retry.over(tried):
        return None
    return Verdict(move("waiting", "over"))


def move(status: DeliveryStatus, came: Result | Literal["nothing", "over"]) -> DeliveryStatus:
    try:
        return MOVES[status, came]
    except KeyError:
        raise IllegalDelivery(f"{came} cannot follow on {status}") from None


@dataclass(frozen=True, slots=True)
class Lane:
    """What one subscriber hears of one conversation: in order, so by one sender at a time."""

    tenant: str
    subscriber: str
    stream: str


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where an event goes. No `repr` shows its secrets."""

    tenant: str
    id: str
    url: str
    include_content: bool
    secrets: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """`event`: what is told, without text: the CloudEvent's JSON, or of a channel what `Outbound` is made of.
    `tried`: as the next attempt begins."""

    id: str
    event_id: str
    type: str
    event: dict[str, Any]
    message_id: str | None
    tried: Tried


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery to try now. `message`: as it is stored at this moment; None where it has none (any more)."""

    lane: Lane
    delivery: Delivery
    target: WebhookTarget | Channel
    message: Message | None


class Lanes(Protocol):
    """Deliveries that wait. Every method may raise `Unavailable`."""

    async def claim(self, limit: int) -> list[Lane]:
        """Lanes with something due, some of each tenant, now this sender's for `HELD` seconds."""
        ...

    async def first(self, lane: Lane) -> Due | None:
        """Begin the next attempt and hold the lane anew; None where the lane is not this sender's (any more), or
        nothing is due in it: it is given up then."""
        ...

    async def ended(self, due: Due, sent: Sent | None, verdict: Verdict, seconds: float) -> bool:
        """Keep what an attempt came to; whether the lane is still held and has more that is due. Nothing is kept where
        another one holds the lane by now: he does it again."""
        ...

    async def release(self, lane: Lane) -> None:
        """Give a lane up with what waits in it."""
        ...


class Transport(Protocol):
    async def send(self, due: Due) -> Sent | None:
        """One attempt; None where there is nothing left to tell."""
        ...


@dataclass(frozen=True, slots=True)
class Fanned:
    """`rows`: of the outbox that are done; `deliveries`: that were written for them; `began`: conversations, shown on a
    channel, in which an answer is being made."""

    rows: int = 0
    deliveries: int = 0
    began: Sequence[str] = ()


class FanOut(Protocol):
    """The outbox turned into deliveries. Every method may raise `Unavailable`."""

    async def tenants(self, limit: int) -> list[str]:
        """Those of which rows wait."""
        ...

    async def step(self, tenant: str, limit: int) -> Fanned:
        """The next rows of a tenant: their deliveries and their confirmation are one transaction."""
        ...
