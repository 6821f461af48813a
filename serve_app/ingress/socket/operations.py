"""What a client's frames ask for. Each is a request of its own, guarded as the route is that does the same."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from domain.conversation import ConversationKey
from domain.errors import BrainError, NotFound, Unavailable
from domain.events import Position, parse_event_id
from domain.ids import is_id, new_id
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress import logs, metrics
from serve_app.ingress.allowed import may_name
from serve_app.ingress.auth import Needs, authenticated
from serve_app.ingress.bodies import MessageSend, check_models
from serve_app.ingress.context import Visit
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import key_of, known
from serve_app.ingress.parts import Parts
from serve_app.ingress.sending import hand_over
from serve_app.ingress.sends import new_send
from serve_app.ingress.shapes import message_json, rfc3339, turn_json
from serve_app.ingress.socket import frames
from serve_app.ingress.socket.connection import UNAUTHORIZED, Connection
from serve_app.ingress.socket.following import Follower, Following, settle
from serve_app.ingress.socket.sockets import Sockets
from storage.turns import BOUND

P = Permission
_ABSENT = Position()
_READS, _SENDS, _CANCELS = Needs(P.CONVERSATIONS_READ), Needs(P.MESSAGES_SEND, "turn"), Needs(P.MESSAGES_SEND)
FOLLOWED = 256  # turns that one socket follows at once
WATCHED = 1024  # conversations that one socket watches
START = "start"  # of a conversation, in the place of an event's id
TYPES_FOR = 8000  # milliseconds that a word of typing counts
SEEN = 4096  # conversations whose users are remembered, for `FRESH` seconds
FRESH = 15.0


@dataclass(slots=True)
class Asked:
    """One frame, and the request that it is."""

    socket: Connection
    request: Request
    visit: Visit

    @property
    def tenant(self) -> str:
        assert self.visit.tenant is not None
        return self.visit.tenant


class Operations:
    """Over the parts of one replica; `app` is what requests belong to."""

    def __init__(self, app: Any, parts: Parts, sockets: Sockets) -> None:
        self._app, self._parts, self._sockets = app, parts, sockets
        self._follower = Follower(parts)
        self._seen: dict[tuple[str, str, str | None], float] = {}
        sockets.announced, sockets.behind = self._announced, self._behind
        self._obeyed: dict[str, Callable[[Asked, Any], Awaitable[None]]] = {
            "send": self._send,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "cancel": self._cancel,
            "typing": self._typing,
            "read": self._read,
            "presence": self._presence,
            "auth": self._auth,
        }

    async def named(self, socket: Connection, credential: str) -> Caller:
        """Who speaks on this socket from now on. Raises `Problem` 401, and `Unavailable`."""
        visit = Visit(new_id("req"), time.perf_counter())
        caller = await authenticated(self._request(credential, visit, {}))
        socket.caller, socket.credential = caller, credential
        return caller

    async def obey(self, socket: Connection, op: str, frame: frames.Frame, size: int) -> None:
        """Do what the frame asks, and answer it."""
        visit = Visit(new_id("req"), time.perf_counter())
        path = {name: value for name in ("conversation_id", "turn_id") if (value := getattr(frame, name, None))}
        key = getattr(frame, "idempotency_key", None)
        asked = Asked(socket, self._request(socket.credential, visit, path, key, size), visit)
        status = 200
        try:
            await self._obeyed[op](asked, frame)
        except BrainError as problem:
            status = problem.status
            socket.push(frames.error(problem, frame.ref))
            if status == 401:
                socket.close(UNAUTHORIZED, str(problem))
        except Exception as error:
            status = 500
            logs.unexpected(visit, error)
            socket.push(frames.error(Problem(500, "something went wrong in the service"), frame.ref))
        finally:
            settle(self._parts, visit)
            metrics.REQUESTS.labels("WS", op, str(status)).inc()
            if op in ("send", "cancel"):
                logs.access(visit, "WS", op, status, visit.elapsed())

    def _request(
        self, credential: str, visit: Visit, path: dict[str, str], key: str | None = None, size: int = 0
    ) -> Request:
        headers = [(b"authorization", b"Bearer " + credential.encode()), (b"content-length", str(size).encode())]
        if key is not None:
            headers.append((b"idempotency-key", key.encode()))
        return Request(
            {
                "type": "http",
                "method": "POST",
                "path": "/api/v1/ws",
                "query_string": b"",
                "headers": headers,
                "path_params": path,
                "app": self._app,
                "brain.visit": visit,
            }
        )

    # Turns.

    async def _send(self, asked: Asked, frame: frames.SendFrame) -> None:
        socket, body = asked.socket, _message(frame)
        check_models(body)
        caller = await _SENDS(asked.request)
        may_name(caller, body.model, *(body.models or ()))
        key = key_of(caller, frame.conversation_id)
        asked.visit.conversation = key.conversation
        self._bound(socket)
        send = new_send(key, caller.key_id, frame.idempotency_key, body, True)
        asked.visit.turn = send.turn_id
        self._follower.reserve(socket, send.turn_id, key.conversation)
        try:
            result = await hand_over(asked.request, send)
        except BaseException:
            (socket.following or {}).pop(send.turn_id, None)
            raise
        asked.visit.turn = turn_id = result.turn.id
        if turn_id != send.turn_id:
            (socket.following or {}).pop(send.turn_id, None)
        user_message = None if result.user_message is None else message_json(result.user_message)
        told = turn_json(result.turn)
        socket.push(frames.text("ack", ref=frame.ref, turn=told, user_message=user_message, replayed=result.replayed))
        if turn_id != send.turn_id:
            if turn_id in (socket.following or ()):
                return
            self._follower.reserve(socket, turn_id, key.conversation)
        going = Visit(asked.visit.request_id, asked.visit.began, admitted=asked.visit.admitted, entry=asked.visit.entry)
        asked.visit.admitted = asked.visit.entry = None  # they end with the turn's events
        self._follower.begin(socket, key.tenant, turn_id, self._follower.sent(key.tenant, result), going)

    async def _cancel(self, asked: Asked, frame: frames.CancelFrame) -> None:
        caller = await _CANCELS(asked.request)
        parts, turn_id = self._parts, known(frame.turn_id, "turn", "turn")
        conversation, status = await parts.reader.request_cancel(caller.tenant, turn_id)
        asked.visit.conversation, asked.visit.turn = conversation, turn_id
        if not status.ended:
            with suppress(BrainError, TimeoutError):
                async with asyncio.timeout(parts.settings.cancel_wait):
                    await parts.hosts.cancel(ConversationKey(caller.tenant, conversation), turn_id)
        turn = await parts.reader.turn(caller.tenant, turn_id)
        asked.socket.push(frames.text("ack", ref=frame.ref, turn=turn_json(turn)))

    # Following.

    async def _subscribe(self, asked: Asked, frame: frames.SubscribeFrame) -> None:
        caller = await _READS(asked.request)
        if (frame.conversation_id is None) == (frame.turn_id is None):
            raise Problem(422, "give either conversation_id or turn_id", "conversation_id")
        after = _positions(frame.after)
        if frame.turn_id is not None:
            await self._subscribe_turn(asked, caller, frame, after)
        else:
            await self._subscribe_conversation(asked, caller, frame, after)

    async def _subscribe_turn(
        self, asked: Asked, caller: Caller, frame: frames.SubscribeFrame, after: dict[str, Position | None]
    ) -> None:
        socket, turn_id = asked.socket, known(frame.turn_id or "", "turn", "turn")
        if after.keys() - {turn_id} or None in after.values():
            raise Problem(422, "after: is not the id of an event of this turn", "after", "invalid_event_id")
        self._bound(socket)
        turn = await self._parts.reader.turn(caller.tenant, turn_id)
        await self._stop_following(socket, turn_id)
        self._follower.reserve(socket, turn_id, turn.conversation_id)
        socket.push(
            frames.text("ack", ref=frame.ref, turn_id=turn_id, conversation_id=turn.conversation_id, turns=[turn_id])
        )
        self._follower.begin(
            socket, caller.tenant, turn_id, self._follower.resumed(caller.tenant, turn_id, after.get(turn_id))
        )

    async def _subscribe_conversation(
        self, asked: Asked, caller: Caller, frame: frames.SubscribeFrame, after: dict[str, Position | None]
    ) -> None:
        socket, key, parts = asked.socket, key_of(caller, frame.conversation_id or ""), self._parts
        if len(socket.watched or ()) >= WATCHED:
            raise Problem(429, f"a socket watches {WATCHED} conversations at most", "conversation_id", "too_many")
        await parts.reader.conversation(caller.tenant, key.conversation)
        everything = after.pop(START, _ABSENT) is None
        for turn_id in after:
            if (await parts.reader.turn(caller.tenant, turn_id)).conversation_id != key.conversation:
                raise NotFound("there is no such turn in this conversation")
        await self._sockets.watch(socket, key.conversation)
        later = await parts.reader.turns_after(caller.tenant, key.conversation, list(after), everything)
        newest = await parts.reader.newest_turn(caller.tenant, key.conversation)
        if len(later) >= BOUND:
            await self._sockets.unwatch(socket, key.conversation)
            words = f"more than {BOUND} turns were accepted since: read the messages, and subscribe without `after`"
            raise Problem(409, words, "after", "too_far_behind")
        going_on = [one for one, position in after.items() if position is not None]
        begun = [one for one in (*going_on, *later) if one not in (socket.following or ())]
        for turn_id in begun:
            self._follower.reserve(socket, turn_id, key.conversation, watched=True)
        there: list[str] | None = None
        with suppress(Unavailable):
            there = await self._sockets.presence.users(caller.tenant, key.conversation)
        socket.push(
            frames.text(
                "ack",
                ref=frame.ref,
                conversation_id=key.conversation,
                turns=begun,
                resume=newest or START,
                present=None if there is None else [{"user_id": one or None} for one in there],
            )
        )
        for turn_id in begun:
            source = self._follower.resumed(caller.tenant, turn_id, after.get(turn_id))
            self._follower.begin(socket, caller.tenant, turn_id, source)

    async def _unsubscribe(self, asked: Asked, frame: frames.UnsubscribeFrame) -> None:
        socket = asked.socket
        if (frame.conversation_id is None) == (frame.turn_id is None):
            raise Problem(422, "give either conversation_id or turn_id", "conversation_id")
        if frame.turn_id is not None:
            await self._stop_following(socket, frame.turn_id)
        else:
            conversation = frame.conversation_id or ""
            await self._stop_typing(socket, conversation)
            await self._sockets.unwatch(socket, conversation)
            for turn_id, following in list((socket.following or {}).items()):
                if following.watched and following.conversation == conversation:
                    await self._stop_following(socket, turn_id)
        socket.push(frames.text("ack", ref=frame.ref))

    async def _stop_following(self, socket: Connection, turn_id: str) -> None:
        following: Following | None = (socket.following or {}).get(turn_id)
        if following is not None and following.task is not None:
            following.task.cancel()
            await asyncio.gather(following.task, return_exceptions=True)

    def _announced(self, socket: Connection, conversation: str, turn_id: str) -> None:
        if socket.caller is None or socket.follows(turn_id) or socket.closing is not None:
            return
        self._follower.reserve(socket, turn_id, conversation, watched=True)
        tenant = socket.caller.tenant
        self._follower.begin(socket, tenant, turn_id, self._follower.begun(tenant, turn_id))

    def _behind(self, socket: Connection) -> None:
        """What was told in the meantime did not reach this replica."""
        socket.spawn(self._catch_up(socket))

    async def _catch_up(self, socket: Connection) -> None:
        assert socket.caller is not None
        tenant = socket.caller.tenant
        for conversation in list(socket.watched or ()):
            seen = [*(socket.ended or ())]
            with suppress(BrainError):
                for turn_id in await self._parts.reader.turns_after(tenant, conversation, seen):
                    if not socket.follows(turn_id):
                        self._follower.reserve(socket, turn_id, conversation, watched=True)
                        source = self._follower.resumed(tenant, turn_id, None)
                        self._follower.begin(socket, tenant, turn_id, source)

    # Between those who are there.

    async def _typing(self, asked: Asked, frame: frames.TypingFrame) -> None:
        socket, conversation = asked.socket, frame.conversation_id
        caller = await self._may_see(asked, conversation, P.MESSAGES_SEND)
        if frame.typing:
            socket.typing = (socket.typing or set()) | {conversation}
        elif socket.typing is not None:
            socket.typing.discard(conversation)
        self._sockets.tell(socket, conversation, typing(conversation, caller.user, frame.typing))

    async def _stop_typing(self, socket: Connection, conversation: str) -> None:
        if socket.caller is not None and conversation in (socket.typing or ()):
            (socket.typing or set()).discard(conversation)
            self._sockets.tell(socket, conversation, typing(conversation, socket.caller.user, False))

    async def _read(self, asked: Asked, frame: frames.ReadFrame) -> None:
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

    async def _presence(self, asked: Asked, frame: frames.PresenceFrame) -> None:
        caller = await self._may_see(asked, frame.conversation_id, P.CONVERSATIONS_READ)
        there = await self._sockets.presence.users(caller.tenant, frame.conversation_id)
        found = [{"user_id": one or None} for one in there]
        asked.socket.push(frames.text("presence", ref=frame.ref, conversation_id=frame.conversation_id, users=found))

    async def _may_see(self, asked: Asked, conversation: str, permission: Permission) -> Caller:
        """As the guard of a route, but what was found lately is believed, and nothing is taken of the limits."""
        caller = await authenticated(asked.request)
        if permission not in caller.permissions:
            raise Problem(403, f"this needs the permission {permission.value}")
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

    async def _auth(self, asked: Asked, frame: frames.AuthFrame) -> None:
        """Another credential of the same caller, before the one that counts now expires."""
        socket, before = asked.socket, asked.socket.caller
        credential = socket.credential
        caller = await self.named(socket, frame.token)
        if before is not None and (before.tenant, before.user, before.only_user) != (
            caller.tenant,
            caller.user,
            caller.only_user,
        ):
            socket.caller, socket.credential = before, credential
            raise Problem(403, "this is another caller's: open another socket for it", "token")
        socket.push(welcome(socket, frame.ref))

    def _bound(self, socket: Connection) -> None:
        if len(socket.following or ()) >= FOLLOWED:
            raise Problem(429, f"a socket follows {FOLLOWED} turns at once at most", code="too_many")

    async def left(self, socket: Connection) -> None:
        """The connection has ended."""
        for conversation in list(socket.typing or ()):
            await self._stop_typing(socket, conversation)
        socket.stop()
        await self._sockets.leave(socket)


def welcome(socket: Connection, ref: frames.Reference) -> str:
    caller = socket.caller
    assert caller is not None
    return frames.text("ack", ref=ref, user_id=caller.user, tenant_id=caller.tenant, expires_at=caller.expires_at)


def typing(conversation: str, user: str | None, now: bool) -> str:
    more = {"for_ms": TYPES_FOR} if now else {}
    return frames.text("typing", conversation_id=conversation, user_id=user, typing=now, **more)


def _message(frame: frames.SendFrame) -> MessageSend:
    return MessageSend.model_construct(**{name: getattr(frame, name) for name in MessageSend.model_fields})


def _positions(after: str | list[str] | None) -> dict[str, Position | None]:
    """By the turn; None: after its end. Raises `Problem` 400 for what is no event's id."""
    found: dict[str, Position | None] = {}
    for one in [after] if isinstance(after, str) else after or ():
        turn_id, slash, _ = one.partition("/")
        position = parse_event_id(one, turn_id) if is_id(turn_id, "turn") else None
        if one != START and position is None and (slash or not is_id(turn_id, "turn")):
            raise Problem(400, "after: is not the id of an event", "after", "invalid_event_id")
        found[turn_id] = position
    return found
