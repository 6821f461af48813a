"""Who is there: for each conversation the users that a replica has sockets of, until it says so no more."""

import time
from collections.abc import Callable, Iterable

from redis.exceptions import ResponseError

from domain.errors import Unavailable
from storage.redis import Pipeline

LASTS = 60.0  # seconds that a word of presence counts
TOGETHER = 500  # members that are looked at


class RedisPresence:
    """`replica`: a name of this process. A user that has no name ('') is the tenant's own service."""

    def __init__(self, pipeline: Pipeline, replica: str, clock: Callable[[], float] = time.time) -> None:
        self._pipeline, self._replica, self._clock = pipeline, replica, clock

    async def come(self, tenant: str, conversation: str, user: str) -> bool:
        """The user has a socket here now; whether it had none anywhere. Raises `Unavailable`."""
        members = await self._members(tenant, conversation)
        await self.stay([(tenant, conversation, user)])
        return all(one != user for one, _ in members)

    async def go(self, tenant: str, conversation: str, user: str) -> bool:
        """The user has no socket here any more; whether it has none anywhere. Raises `Unavailable`."""
        await self._pipeline.send("ZREM", _key(tenant, conversation), f"{user}|{self._replica}")
        return all(one != user for one, _ in await self._members(tenant, conversation))

    async def stay(self, there: Iterable[tuple[str, str, str]]) -> None:
        """These (tenant, conversation, user) are still there. Raises `Unavailable`."""
        until, answers = self._clock() + LASTS, []
        for tenant, conversation, user in there:
            key = _key(tenant, conversation)
            answers.append(self._pipeline.send("ZADD", key, until, f"{user}|{self._replica}"))
            answers.append(self._pipeline.send("EXPIRE", key, int(LASTS * 2)))
        for answer in answers:
            await answer

    async def users(self, tenant: str, conversation: str) -> list[str]:
        """Those who are there, each once. Raises `Unavailable`."""
        return sorted({user for user, _ in await self._members(tenant, conversation)})

    async def lapsed(self, tenant: str, conversation: str) -> list[str]:
        """Users whose replica has died, each told to one caller alone. Raises `Unavailable`."""
        key = _key(tenant, conversation)
        found = await self._pipeline.send("ZRANGEBYSCORE", key, "-inf", self._clock(), "LIMIT", 0, TOGETHER)
        gone = [one for one in found if await self._pipeline.send("ZREM", key, one)]
        here = set(await self.users(tenant, conversation)) if gone else set()
        return sorted({_user(one) for one in gone} - here)

    async def _members(self, tenant: str, conversation: str) -> list[tuple[str, str]]:
        try:
            key, now = _key(tenant, conversation), f"({self._clock()}"
            found = await self._pipeline.send("ZRANGEBYSCORE", key, now, "+inf", "LIMIT", 0, TOGETHER)
        except ResponseError as error:
            raise Unavailable(str(error)) from error
        return [(_user(one), one.decode().rpartition("|")[2]) for one in found]


def _user(member: bytes) -> str:
    return member.decode().rpartition("|")[0]


def _key(tenant: str, conversation: str) -> str:
    return f"brain:{tenant}:present:{conversation}"
