"""`domain.queue.Queue` in a process's memory: the contract at its plainest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from adapters.queue.redis_queue import Rules
from domain.cloud_events import CloudEvent
from domain.errors import NotFound
from domain.queue import DeadLetter, Delivered, GroupFigures, NoSuchTopic, Topic, TopicExists, TopicFigures


@dataclass
class _Pending:
    event: CloudEvent
    consumer: str
    delivery: int
    until: float
    again: bool = False


@dataclass
class _Group:
    place: int
    pending: dict[int, _Pending] = field(default_factory=dict)


@dataclass
class _Topic:
    topic: Topic
    entries: list[tuple[float, CloudEvent, str | None]] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)
    dead: dict[int, DeadLetter] = field(default_factory=dict)


class MemoryQueue:
    """`clock`: Unix seconds."""

    def __init__(self, rules: Rules | None = None, clock: Callable[[], float] = time.time) -> None:
        self._rules, self._clock = rules or Rules(), clock
        self._topics: dict[str, _Topic] = {}
        self._deaths = 0

    async def create_topic(self, topic: Topic) -> None:
        if topic.name in self._topics:
            raise TopicExists(f"there is a topic {topic.name} already")
        self._topics[topic.name] = _Topic(topic)

    async def delete_topic(self, name: str) -> None:
        self._of(name)
        del self._topics[name]

    async def topics(self) -> list[Topic]:
        return [self._topics[name].topic for name in sorted(self._topics)]

    async def publish(self, name: str, events: Sequence[CloudEvent]) -> list[str]:
        entries = self._of(name).entries
        entries += [(self._clock(), event, None) for event in events]
        return [str(place + 1) for place in range(len(entries) - len(events), len(entries))]

    async def subscribe(self, name: str, group: str, since: datetime | None = None) -> None:
        topic = self._of(name)
        place = len(topic.entries) if since is None else _place(topic, since)
        topic.groups.setdefault(group, _Group(place))

    async def unsubscribe(self, name: str, group: str) -> None:
        self._group(name, group)
        del self._of(name).groups[group]

    async def read(self, name: str, group: str, consumer: str, limit: int, wait: float = 0) -> list[Delivered]:
        """`wait` is for nothing: nobody can publish meanwhile."""
        topic, held, now = self._of(name), self._group(name, group), self._clock()
        due = [id for id, one in held.pending.items() if one.until <= now]
        due.sort(key=lambda id: (not held.pending[id].again, held.pending[id].until if held.pending[id].again else id))
        found = []
        for id in due[:limit]:
            one = held.pending[id]
            one.consumer, one.delivery, one.again = consumer, one.delivery + 1, False
            one.until = now + self._rules.lease
            found.append(Delivered(str(id), one.event, one.delivery))
        while len(found) < limit and held.place < len(topic.entries):
            _, event, of = topic.entries[held.place]
            held.place += 1
            if of in (None, group):
                held.pending[held.place] = _Pending(event, consumer, 1, now + self._rules.lease)
                found.append(Delivered(str(held.place), event, 1))
        return found

    async def acknowledge(self, name: str, group: str, ids: Sequence[str]) -> int:
        pending = self._group(name, group).pending
        return sum(pending.pop(int(id), None) is not None for id in ids)

    async def reject(self, name: str, group: str, ids: Sequence[str], error: str) -> int:
        topic, pending, died = self._of(name), self._group(name, group).pending, 0
        for id in map(int, ids):
            one = pending.get(id)
            if one is None or one.again:
                continue
            if one.delivery < self._rules.tries:
                one.again = True
                one.until = self._clock() + min(self._rules.pause * 2 ** (one.delivery - 1), self._rules.longest)
            else:
                del pending[id]
                died += 1
                self._deaths += 1
                at = datetime.fromtimestamp(self._clock(), UTC)
                letter = DeadLetter(str(self._deaths), one.event, group, error[:2000], one.delivery, at)
                topic.dead[self._deaths] = letter
        return died

    async def dead_letters(self, name: str, after: str | None, limit: int) -> list[DeadLetter]:
        return [letter for id, letter in self._of(name).dead.items() if id > int(after or 0)][:limit]

    async def send_again(self, name: str, ids: Sequence[str]) -> int:
        topic, sent = self._of(name), 0
        for id in map(int, ids):
            letter = topic.dead.pop(id, None)
            if letter is not None:
                topic.entries.append((self._clock(), letter.event, letter.group))
                sent += 1
        return sent

    async def replay(self, name: str, group: str, since: datetime) -> None:
        self._group(name, group).place = _place(self._of(name), since)

    async def statistics(self, name: str) -> TopicFigures:
        topic = self._of(name)
        groups = [
            GroupFigures(
                name=one,
                pending=len(held.pending),
                retrying=sum(each.again for each in held.pending.values()),
                consumers=len({each.consumer for each in held.pending.values()}),
                last=str(held.place),
            )
            for one, held in sorted(topic.groups.items())
        ]
        ends = ("1", str(len(topic.entries))) if topic.entries else (None, None)
        return TopicFigures(name, len(topic.entries), 0, len(topic.dead), *ends, groups)

    def _of(self, name: str) -> _Topic:
        try:
            return self._topics[name]
        except KeyError:
            raise NoSuchTopic(f"there is no topic {name}") from None

    def _group(self, name: str, group: str) -> _Group:
        try:
            return self._of(name).groups[group]
        except KeyError:
            raise NotFound(f"there is no such group of the topic {name}") from None


def _place(topic: _Topic, since: datetime) -> int:
    return next((n for n, (at, *_) in enumerate(topic.entries) if at >= since.timestamp()), len(topic.entries))
