"""The topics of the platform, and the types of events that each holds."""

from domain.queue import NoSuchTopic, Topic, TopicExists
from storage.postgres import Pool, asking
from storage.retry import again


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
            made = await lent.fetchval(
                "INSERT INTO brain.event_topics (name, patterns) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name",
                topic.name,
                list(topic.patterns),
            )
        if made is None:
            raise TopicExists(f"there is a topic {topic.name} already")

    async def delete(self, name: str) -> None:
        """Raises `NoSuchTopic`."""
        async with asking(self._pool) as lent:
            gone = await lent.fetchval("DELETE FROM brain.event_topics WHERE name = $1 RETURNING name", name)
        if gone is None:
            raise NoSuchTopic(f"there is no topic {name}")
