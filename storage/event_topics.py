"""The topics of the platform, and the types of events that each holds."""

from dataclasses import dataclass

from domain.queue import NoSuchTopic, Topic, TopicExists
from domain.tenant import Caller
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again


@dataclass(frozen=True, slots=True)
class NewTopic:
    """What is asked for; `key` and `body_hash` as of `NewConversation`."""

    topic: Topic
    key: str | None = None
    body_hash: bytes = b""


class PostgresTopics:
    """Methods raise `Unavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def all(self) -> list[Topic]:
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT name, patterns FROM brain.event_topics ORDER BY name")
        return [Topic(row["name"], tuple(row["patterns"])) for row in rows]

    async def create(self, topic: Topic) -> None:
        """Raises `TopicExists`."""
        async with asking(self._pool) as lent:
            await _insert(lent, topic)

    async def make(self, caller: Caller, new: NewTopic) -> tuple[Topic, bool]:
        """As `create`, for a caller, and whether it answers an earlier request. Raises `IdempotencyMismatch`."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None and (first := await first_answer(lent, caller, new.key, new.body_hash)) is not None:
                return Topic(first["name"], tuple(first["patterns"])), True
            await _insert(lent, new.topic)
            told = {"name": new.topic.name, "patterns": list(new.topic.patterns)}
            await record(lent, caller, "event_topic.created", new.topic.name, told)
            if new.key is not None:
                await remember(lent, caller, new.key, told)
            return new.topic, False

    async def note(self, caller: Caller, action: str, subject: str) -> None:
        """Into the audit log."""
        async with reading(self._pool, caller.tenant) as lent:
            await record(lent, caller, action, subject)

    async def delete(self, name: str) -> None:
        """Raises `NoSuchTopic`."""
        async with asking(self._pool) as lent:
            gone = await lent.fetchval("DELETE FROM brain.event_topics WHERE name = $1 RETURNING name", name)
        if gone is None:
            raise NoSuchTopic(f"there is no topic {name}")


async def _insert(lent: Connection, topic: Topic) -> None:
    made = await lent.fetchval(
        "INSERT INTO brain.event_topics (name, patterns) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name",
        topic.name,
        list(topic.patterns),
    )
    if made is None:
        raise TopicExists(f"there is a topic {topic.name} already")
