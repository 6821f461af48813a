"""One call of a client, from the outside, as an `Operation` of the history, whatever becomes of it."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp

from domain.events import Event
from domain.turn import TurnStatus
from tests.faults.history import Kind, Message, Operation, TurnState, event_of

PAGE = 8  # messages a page: conversations have several
PATIENCE = 60.0  # seconds for an answer; of a stream, for its next event
LOST = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
GATEWAY = (502, 504)  # of a failed turn

_numbers = itertools.count(1)


class Caller:
    """The calls of one client; each is put into `record` as soon as it has ended. Times are monotonic."""

    def __init__(self, name: str, http: aiohttp.ClientSession, record: Callable[[Operation], None]) -> None:
        self.name = name
        self._http, self._record = http, record

    async def create(self, key: str, retry_of: int | None = None) -> Operation:
        call = self._call("create", "", key=key, retry_of=retry_of)
        return await self._ask(call, "POST", "/api/v1/conversations", {})

    async def send(
        self, conversation: str, content: str, key: str, options: dict[str, Any], retry_of: int | None = None
    ) -> Operation:
        call = self._call("send", conversation, key=key, content=content, options=options, retry_of=retry_of)
        return await self._ask(call, "POST", _messages(conversation), {"content": content, **options})

    async def send_streamed(
        self,
        conversation: str,
        content: str,
        key: str,
        options: dict[str, Any],
        enough: int | None = None,
        retry_of: int | None = None,
    ) -> Operation:
        """`enough`: leave after so many events."""
        call = self._call("send", conversation, key=key, content=content, options=options, retry_of=retry_of)
        body = {"content": content, "stream": True, **options}
        return await self._stream(call, "POST", _messages(conversation), body, enough)

    async def stream(self, conversation: str, turn: str, after: str | None, enough: int | None = None) -> Operation:
        call = self._call("stream", conversation, turn_id=turn, after=after)
        return await self._stream(call, "GET", f"/api/v1/turns/{turn}/events", None, enough)

    async def regenerate(self, conversation: str, message: str, key: str, retry_of: int | None = None) -> Operation:
        call = self._call("regenerate", conversation, key=key, message_id=message, retry_of=retry_of)
        return await self._ask(call, "POST", f"/api/v1/messages/{message}/regenerate", {})

    async def cancel(self, conversation: str, turn: str) -> Operation:
        call = self._call("cancel", conversation, turn_id=turn)
        return await self._ask(call, "POST", f"/api/v1/turns/{turn}/cancel", None)

    async def look(self, conversation: str, turn: str) -> Operation:
        return await self._ask(self._call("look", conversation, turn_id=turn), "GET", f"/api/v1/turns/{turn}", None)

    async def delete(self, conversation: str) -> Operation:
        call = self._call("delete", conversation)
        return await self._ask(call, "DELETE", f"/api/v1/conversations/{conversation}", None)

    async def read(self, conversation: str) -> Operation:
        """All messages, page after page."""
        call = self._call("read", conversation)
        found: list[Message] = []
        path = f"{_messages(conversation)}?limit={PAGE}"
        while True:
            page = await self._ask(call, "GET", path, None, keep=False)
            found += page.messages
            if page.outcome != "ok" or len(page.messages) < PAGE:
                whole = replace(page, messages=tuple(found) if page.outcome == "ok" else ())
                self._record(whole)
                return whole
            path = f"{_messages(conversation)}?limit={PAGE}&after={found[-1].id}"

    def _call(self, kind: Kind, conversation: str, **asked: Any) -> Operation:
        now = time.monotonic()
        return Operation(next(_numbers), self.name, kind, conversation, now, now, "unknown", **asked)

    async def _ask(self, call: Operation, method: str, path: str, body: Any, keep: bool = True) -> Operation:
        headers = {"Idempotency-Key": call.key} if call.key else {}
        try:
            async with asyncio.timeout(PATIENCE), self._http.request(method, path, json=body, headers=headers) as told:
                text = await told.read()
                done = _answered(_told(call, told), told.status, json.loads(text) if text else {})
        except LOST:
            done = call
        done = replace(done, ended=time.monotonic())
        if keep:
            self._record(done)
        return done

    async def _stream(self, call: Operation, method: str, path: str, body: Any, enough: int | None) -> Operation:
        headers = {"Idempotency-Key": call.key} if call.key else {}
        if call.after:
            headers["Last-Event-ID"] = call.after
        events: list[Event] = []
        times: list[float] = []
        done = call
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience, self._http.request(method, path, json=body, headers=headers) as told:
                if told.status != 200:
                    done = _answered(_told(call, told), told.status, json.loads(await told.read()))
                else:
                    done = replace(call, http=200)
                    async for line in told.content:
                        if line.startswith(b"data: "):
                            events.append(event_of(json.loads(line[6:])))
                            times.append(time.monotonic())
                            patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                            if enough is not None and len(events) >= enough:
                                done = replace(done, left=True)
                                break
                    else:
                        done = replace(done, outcome="ok")
        except LOST:
            done = replace(done, silent=patience.expired() and done.http == 200)
        done = replace(done, ended=time.monotonic(), events=tuple(events), times=tuple(times))
        self._record(done)
        return done


def _messages(conversation: str) -> str:
    return f"/api/v1/conversations/{conversation}/messages"


def _told(call: Operation, answer: aiohttp.ClientResponse) -> Operation:
    """With when to come again."""
    return replace(call, retry_after=float(again)) if (again := answer.headers.get("retry-after")) else call


def _answered(call: Operation, status: int, body: Any) -> Operation:
    """With what an answer told."""
    error = body["error"] if status >= 400 and "error" in body else {}
    call = replace(call, http=status, code=error.get("code"))
    if status in GATEWAY and str(error.get("param", "")).startswith("turn_"):
        return replace(call, outcome="ok", turn=TurnState(error["param"], TurnStatus.FAILED))
    if status >= 400:
        return replace(call, outcome="refused" if status < 500 and status != 408 else "unknown")
    call = replace(call, outcome="ok")
    if call.kind == "create":
        return replace(call, conversation=body["id"])
    if call.kind in ("look", "cancel"):
        return replace(call, turn=TurnState.of(body))
    if call.kind == "read":
        return replace(call, messages=tuple(Message.of(one) for one in body["data"]))
    if call.kind in ("send", "regenerate"):
        user, reply = body.get("user_message"), body.get("message")
        return replace(
            call,
            turn=TurnState.of(body["turn"]),
            user_message=Message.of(user) if user else None,
            reply=Message.of(reply) if reply else None,
        )
    return call
