"""A queue of events with topics and groups of consumers, and the names that its parts share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from domain.cloud_events import CloudEvent
from domain.errors import NameTaken, NotFound

DEFAULT_TOPIC = "brain"


def tenant_stream(tenant: str) -> str:
    """The stream of all events of a tenant."""
    return f"brain:events:{tenant}"


def topic_stream(topic: str) -> str:
    return f"brain:topic:{topic}"


def dead_letters(topic: str) -> str:
    """The stream of what the topic's groups gave up."""
    return f"{topic_stream(topic)}:dead"


class TopicExists(NameTaken):
    """There is a topic of this name already."""


class NoSuchTopic(NotFound):
    """There is no such topic."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A stream of the events whose types one of `patterns` matches (`domain.cloud_events.matches`)."""

    name: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """An event in a consumer's hands. `id`: what it is acknowledged by; `delivery`: 1 the first time."""

    id: str
    event: CloudEvent
    delivery: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group gave up, and why."""

    id: str
    event: CloudEvent
    group: str
    error: str
    deliveries: int
    at: datetime


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """`pending`: handed out and not acknowledged; `retrying`: of these, to be handed out again later. `last`: the id up
    to which it was handed out."""

    name: str
    pending: int
    retrying: int
    consumers: int
    last: str


@dataclass(frozen=True, slots=True)
class TopicFigures:
    name: str
    length: int
    bytes: int
    dead: int
    first: str | None
    last: str | None
    groups: list[GroupFigures] = field(default_factory=list)


class Queue(Protocol):
    """Topics hold events in the order in which they were published, up to a bound; a group hands each of them to one of
    its consumers, in that order, at least once. Every method may raise `Unavailable`, and those that name a topic or a
    group `NotFound`.
    """

    async def create_topic(self, topic: Topic) -> None:
        """Raises `TopicExists`."""
        ...

    async def delete_topic(self, name: str) -> None:
        """With all that it holds."""
        ...

    async def topics(self) -> list[Topic]: ...

    async def publish(self, name: str, events: Sequence[CloudEvent]) -> list[str]:
        """Put these behind all others; their ids in the topic. An event may be published twice: `event.id` tells."""
        ...

    async def subscribe(self, name: str, group: str, since: datetime | None = None) -> None:
        """Make a group that is handed what comes from now on, or what the topic has from a time on; nothing where there
        is one of this name."""
        ...

    async def unsubscribe(self, name: str, group: str) -> None: ...

    async def read(self, name: str, group: str, consumer: str, limit: int, wait: float = 0) -> list[Delivered]:
        """Up to `limit` events, now this consumer's for a lease: those to be retried first, then those whose consumer
        let its lease run out, then new ones. Waits up to `wait` seconds for the first."""
        ...

    async def acknowledge(self, name: str, group: str, ids: Sequence[str]) -> int:
        """These are done with; how many counted."""
        ...

    async def reject(self, name: str, group: str, ids: Sequence[str], error: str) -> int:
        """These could not be worked on: each is handed out again later, each time twice as late, and is a dead letter
        in the end; how many were just now."""
        ...

    async def dead_letters(self, name: str, after: str | None, limit: int) -> list[DeadLetter]:
        """In the order in which they died, behind the one `after`."""
        ...

    async def send_again(self, name: str, ids: Sequence[str]) -> int:
        """Dead letters that their groups alone are handed again; how many there were."""
        ...

    async def replay(self, name: str, group: str, since: datetime) -> None:
        """The group is handed again what the topic has from `since` on."""
        ...

    async def statistics(self, name: str) -> TopicFigures: ...
