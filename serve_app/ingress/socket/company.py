"""What goes between those who watch a conversation: who types, who has read what, who is there."""

import time
from datetime import UTC, datetime

from domain.errors import NotFound
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.auth import authenticated, forbidden
from serve_app.ingress.params import known
from serve_app.ingress.parts import Parts
from serve_app.ingress.shapes import rfc3339
from serve_app.ingress.socket import frames
from serve_app.ingress.socket.asked import Asked
from serve_app.ingress.socket.connection import Connection
from serve_app.ingress.socket.sockets import Sockets

P = Permission
TYPES_FOR = 8000  # milliseconds that a word of typing counts
SEEN = 4096  # conversations whose users are remembered, for `FRESH` seconds
FRESH = 15.0


class Company:
    """Nothing of it is kept, and nothing of it takes of a caller's limits but the frames that a socket may send."""

    def __init__(self, parts: Parts, sockets: Sockets) -> None:
        self._parts, self._sockets = parts, sockets
        self._seen: dict[tuple[str, str, str | None], float] = {}

    async def typing(self, asked: Asked, frame: frames.TypingFrame) -> None:
        socket, conversation = asked.socket, frame.conversation_id
        caller = await self._may_see(asked, conversation, P.MESSAGES_SEND)
        if frame.typing:
            socket.typing = (socket.typing or set()) | {conversation}
        elif socket.typing is not None:
            socket.typing.discard(conversation)
        self._sockets.tell(socket, conversation, _typing(conversation, caller.user, frame.typing))

    def stop_typing(self, socket: Connection, conversation: str) -> None:
        if socket.caller is not None and conversation in (socket.typing or ()):
            (socket.typing or set()).discard(conversation)
            self._sockets.tell(socket, conversation, _typing(conversation, socket.caller.user, False))

    async def read(self, asked: Asked, frame: frames.ReadFrame) -> None:
        caller = await self._may_see(asked, frame.conversation_id, P.CONVERSATIONS_READ)
        message = known(frame.message_id, "msg", "message")
        if await self._parts.reader.conversation_of(caller.tenant, message) != frame.conversation_id:
            raise NotFound("there is no such message in this conversation")
        told = frames.text(
            "read",
            conversation_id=frame.conversation_id,
            message_id=message,
            user_id=caller.user,
            at=rfc3339(datetime.now(UTC)),
        )
        self._sockets.tell(asked.socket, frame.conversation_id, told)
        if frame.ref is not None:
            asked.socket.push(frames.text("ack", ref=frame.ref))

    async def presence(self, asked: Asked, frame: frames.PresenceFrame) -> None:
        caller = await self._may_see(asked, frame.conversation_id, P.CONVERSATIONS_READ)
        there = await self._sockets.attendance.users(caller.tenant, frame.conversation_id)
        found = [{"user_id": one or None} for one in there]
        asked.socket.push(frames.text("presence", ref=frame.ref, conversation_id=frame.conversation_id, users=found))

    async def _may_see(self, asked: Asked, conversation: str, permission: Permission) -> Caller:
        """As the guard of a route, but what was found lately is believed, and nothing is taken of the limits."""
        caller = await authenticated(asked.request)
        if permission not in caller.permissions:
            raise forbidden(permission)
        known(conversation, "conv", "conversation")
        place, now = (caller.tenant, conversation, caller.only_user), time.monotonic()
        if self._seen.get(place, -FRESH) + FRESH < now:
            found = await self._parts.reader.conversation(caller.tenant, conversation)
            if caller.only_user is not None and found.user_id != caller.only_user:
                raise NotFound("there is no such conversation")
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen[place] = now
        return caller


def _typing(conversation: str, user: str | None, now: bool) -> str:
    more = {"for_ms": TYPES_FOR} if now else {}
    return frames.text("typing", conversation_id=conversation, user_id=user, typing=now, **more)
