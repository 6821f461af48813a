"""Who is there: of users with sockets here those who watch are told, on each replica, when they come and go."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from domain.errors import Unavailable
from serve_app.ingress.socket import frames
from storage.broadcast import Told
from storage.presence import LASTS, RedisPresence

CROWD = 100  # users of a conversation beyond whom coming and going is not told
Place = tuple[str, str]  # tenant, conversation


class Attendance:
    """`tell`: to all who watch, on each replica. A user that has no name ('') is the tenant's own service."""

    def __init__(self, presence: RedisPresence, tell: Callable[[Told], None]) -> None:
        self._presence, self._tell = presence, tell
        self._users: dict[Place, Counter[str]] = {}

    async def users(self, tenant: str, conversation: str) -> list[str]:
        """Those who are there, each once. Raises `Unavailable`."""
        return await self._presence.users(tenant, conversation)

    async def come(self, place: Place, user: str, socket: str) -> None:
        """Another socket of the user, of this name, watches the conversation."""
        here = self._users.setdefault(place, Counter())
        here[user] += 1
        if here[user] == 1:
            with suppress(Unavailable):
                if await self._presence.come(*place, user) and len(here) <= CROWD:
                    self._tell(_told(place, user, True, socket))

    async def go(self, place: Place, user: str, socket: str) -> None:
        here = self._users.get(place, Counter[str]())
        here[user] -= 1
        if here[user] > 0:
            return
        del here[user]
        if not here:
            self._users.pop(place, None)
        with suppress(Unavailable):
            if await self._presence.go(*place, user) and len(here) <= CROWD:
                self._tell(_told(place, user, False, socket))

    async def stay(self) -> None:
        """Say again and again who is here, and tell of those whose replica says so no more."""
        while True:
            await asyncio.sleep(LASTS / 3)
            with suppress(Unavailable):
                await self._presence.stay([(*place, user) for place, users in self._users.items() for user in users])
                for place in list(self._users):
                    for user in await self._presence.lapsed(*place):
                        self._tell(_told(place, user, False, ""))


def _told(place: Place, user: str, there: bool, socket: str) -> Told:
    frame = frames.text("presence", conversation_id=place[1], user_id=user or None, present=there)
    return Told(*place, "frame", socket, frame)
