"""Turns over a socket: sent, cancelled, followed, alone or all of a conversation."""

import asyncio
from contextlib import suppress

from domain.conversation import ConversationKey
from domain.errors import BrainError, NotFound, Unavailable
from domain.events import Position, parse_event_id
from domain.ids import is_id
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.allowed import may_name
from serve_app.ingress.auth import Needs
from serve_app.ingress.bodies import MessageSend, check_models
from serve_app.ingress.context import Visit
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import key_of, known
from serve_app.ingress.parts import Parts
from serve_app.ingress.sending import hand_over
from serve_app.ingress.sends import new_send
from serve_app.ingress.shapes import message_json, turn_json
from serve_app.ingress.socket import frames
from serve_app.ingress.socket.asked import Asked
from serve_app.ingress.socket.connection import Connection
from serve_app.ingress.socket.following import Follower, Following
from serve_app.ingress.socket.sockets import Sockets
from storage.turns import BOUND

P = Permission
_ABSENT = Position()
_READS, _SENDS, _CANCELS = Needs(P.CONVERSATIONS_READ), Needs(P.MESSAGES_SEND, "turn"), Needs(P.MESSAGES_SEND)
FOLLOWED = 256  # turns that one socket follows at once
WATCHED = 1024  # conversations that one socket watches
START = "start"  # of a conversation, in the place of an event's id


class Turns:
    """Over the parts of one replica."""

    def __init__(self, parts: Parts, sockets: Sockets) -> None:
        self._parts, self._sockets = parts, sockets
        self._follower = Follower(parts)
        sockets.announced, sockets.behind = self._announced, self._behind

    async def send(self, asked: Asked, frame: frames.SendFrame) -> None:
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

    async def cancel(self, asked: Asked, frame: frames.CancelFrame) -> None:
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

    async def subscribe(self, asked: Asked, frame: frames.SubscribeFrame) -> None:
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
        socket.reached(key.conversation, newest or START)
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
            there = await self._sockets.attendance.users(caller.tenant, key.conversation)
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

    async def unsubscribe(self, asked: Asked, frame: frames.UnsubscribeFrame) -> None:
        socket = asked.socket
        if (frame.conversation_id is None) == (frame.turn_id is None):
            raise Problem(422, "give either conversation_id or turn_id", "conversation_id")
        if frame.turn_id is not None:
            await self._stop_following(socket, frame.turn_id)
        else:
            conversation = frame.conversation_id or ""
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
        for conversation, last in list((socket.watched or {}).items()):
            seen = [*(socket.ended or ()), last]
            with suppress(BrainError):
                for turn_id in await self._parts.reader.turns_after(tenant, conversation, seen, last == START):
                    if not socket.follows(turn_id):
                        self._follower.reserve(socket, turn_id, conversation, watched=True)
                        source = self._follower.resumed(tenant, turn_id, None)
                        self._follower.begin(socket, tenant, turn_id, source)

    def _bound(self, socket: Connection) -> None:
        if len(socket.following or ()) >= FOLLOWED:
            raise Problem(429, f"a socket follows {FOLLOWED} turns at once at most", code="too_many")


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
