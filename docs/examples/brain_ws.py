"""A client of the Brain's WebSocket: sends, follows, and goes on where it was when the connection comes back.

    pip install websockets
    BRAIN_KEY=… python brain_ws.py ws://127.0.0.1:8000/api/v1/ws conv_… "Hello"    # says it, and prints the answer
    BRAIN_KEY=… python brain_ws.py ws://127.0.0.1:8000/api/v1/ws conv_…            # prints what happens there

As a library:

    async with BrainSocket("ws://127.0.0.1:8000/api/v1/ws", key) as brain:
        await brain.subscribe(conversation)
        turn = await brain.send(conversation, "Hello")
        async for frame in brain.frames():
            ...  # {"op": "event", "id", "event"}, {"op": "typing", …}, {"op": "read", …}, {"op": "presence", …}

Each event is given once and without a gap, whatever becomes of the connection; a message is sent once, too: what was
not answered is sent again with its idempotency key.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

Frame = dict[str, Any]
ENDS = ("turn.completed", "turn.failed", "turn.cancelled")
LONGEST = 10.0  # seconds between two tries to connect


class Refused(Exception):
    """The service does not do what was asked; `error` is its frame: code, message, param, status."""

    def __init__(self, error: Frame) -> None:
        super().__init__(error["message"])
        self.error = error


class BrainSocket:
    """`token`: an API key or an access token, given by a subprotocol, never in the address."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token
        self._connection: ClientConnection | None = None
        self._frames: asyncio.Queue[Frame | Exception] = asyncio.Queue()
        self._asked: dict[str, tuple[Frame, asyncio.Future[Frame]]] = {}
        self._watched: dict[str, str] = {}  # conversation → where to resume if no event of it was seen yet
        self._last: dict[str, tuple[str, str]] = {}  # unfinished turn → conversation, id of the last event
        self._ended: deque[str] = deque(maxlen=512)  # turns
        self._wait = 0.0  # seconds until the next try to connect
        self._task: asyncio.Task[None] | None = None
        self.connections = 0

    async def __aenter__(self) -> "BrainSocket":
        self._connection = await self._connect()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def send(self, conversation: str, content: str, **fields: Any) -> Frame:
        """The accepted turn. `fields`: model, parameters, on_busy, metadata. Raises `Refused`."""
        key = fields.pop("idempotency_key", None) or uuid.uuid4().hex
        asked = {"conversation_id": conversation, "content": content, "idempotency_key": key, **fields}
        turn: Frame = (await self.ask("send", **asked))["turn"]
        return turn

    async def subscribe(self, conversation: str, after: str | list[str] | None = None) -> Frame:
        """Every turn of the conversation from now on, wherever it begins. Raises `Refused`."""
        answer = await self.ask("subscribe", conversation_id=conversation, **({"after": after} if after else {}))
        self._watched.setdefault(conversation, answer["resume"])
        return answer

    async def unsubscribe(self, conversation: str) -> None:
        self._watched.pop(conversation, None)
        await self.ask("unsubscribe", conversation_id=conversation)

    async def cancel(self, turn: str) -> Frame:
        answer: Frame = (await self.ask("cancel", turn_id=turn))["turn"]
        return answer

    async def typing(self, conversation: str, typing: bool = True) -> None:
        await self._write({"op": "typing", "conversation_id": conversation, "typing": typing})

    async def read(self, conversation: str, message: str) -> None:
        await self.ask("read", conversation_id=conversation, message_id=message)

    async def present(self, conversation: str) -> list[Frame]:
        """The users who are there."""
        found: list[Frame] = (await self.ask("presence", conversation_id=conversation))["users"]
        return found

    async def ask(self, op: str, **fields: Any) -> Frame:
        """Send a frame and wait for its answer, over as many connections as it takes. Raises `Refused`."""
        frame = {"op": op, "ref": uuid.uuid4().hex, **fields}
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked[frame["ref"]] = frame, answer
        await self._write(frame)
        try:
            return await answer
        finally:
            self._asked.pop(frame["ref"], None)

    async def frames(self) -> AsyncIterator[Frame]:
        """What comes, for ever. Raises `Refused` where the credential counts no more."""
        while True:
            frame = await self._frames.get()
            if isinstance(frame, Exception):
                raise frame
            yield frame

    async def _write(self, frame: Frame) -> None:
        if self._connection is not None:
            with suppress(ConnectionClosed):  # what has to be answered is written again
                await self._connection.send(json.dumps(frame))

    async def _connect(self) -> ClientConnection:
        protocols: Any = ["brain.v1", f"bearer.{self._token}"]
        connection = await connect(self._url, subprotocols=protocols, max_size=2**24, compression=None)
        self.connections += 1
        return connection

    async def _run(self) -> None:
        while True:
            assert self._connection is not None
            with suppress(ConnectionClosed):
                async for text in self._connection:
                    self._take(json.loads(text))
            if self._connection.close_code == 4401:
                reason = self._connection.close_reason or "the credential does not count any more"
                return self._end(Refused({"code": "invalid_api_key", "message": reason, "status": 401, "param": None}))
            self._connection = await self._again()
            await self._resume()

    async def _again(self) -> ClientConnection:
        pause, self._connection = 0.1, None
        while True:
            await asyncio.sleep(self._wait + random.uniform(0, pause))
            self._wait, pause = 0.0, min(LONGEST, pause * 2)
            with suppress(OSError, InvalidHandshake, TimeoutError, ConnectionClosed):
                try:
                    return await self._connect()
                except InvalidStatus as refused:
                    if refused.response.status_code in (401, 403):
                        words = f"the connection was refused: {refused.response.status_code}"
                        self._end(Refused({"code": "refused", "message": words, "status": 401, "param": None}))
                        raise

    async def _resume(self) -> None:
        """Subscribe to everything again, each after the last event that was had of it."""
        for conversation, newest in list(self._watched.items()):
            going_on = [last for of, last in self._last.values() if of == conversation and last]
            after = [*going_on, newest]
            await self._write({"op": "subscribe", "conversation_id": conversation, "after": after})
        for turn, (conversation, last) in list(self._last.items()):
            if conversation not in self._watched:
                await self._write({"op": "subscribe", "turn_id": turn, **({"after": last} if last else {})})
        for frame, _ in list(self._asked.values()):
            await self._write(frame)

    def _take(self, frame: Frame) -> None:
        asked = self._asked.get(frame.get("ref") or "")
        if asked is not None and not asked[1].done():
            if frame["op"] == "error":
                asked[1].set_exception(Refused(frame))
            else:
                if frame.get("user_message") and frame["turn"]["id"] not in self._ended:
                    self._last.setdefault(frame["turn"]["id"], (frame["turn"]["conversation_id"], ""))
                asked[1].set_result(frame)
        elif frame["op"] == "reconnect":
            self._wait = frame["after_ms"] / 1000
        elif frame["op"] != "event" or self._is_new(frame):
            self._frames.put_nowait(frame)

    def _is_new(self, frame: Frame) -> bool:
        """Whether the event was not had before; notes where to go on."""
        event, conversation = frame["event"], frame["conversation_id"]
        turn, place = event["turn_id"], (event["attempt"], event["n"])
        last = self._last.get(turn, ("", ""))[1]
        if last and place <= tuple(map(int, last.split("/")[1:])):
            return False
        if turn in self._ended:
            return False
        if event["type"] in ENDS:
            self._last.pop(turn, None)
            self._ended.append(turn)
            if conversation in self._watched:
                self._watched[conversation] = turn
        else:
            self._last[turn] = conversation, frame["id"]
        return True

    def _end(self, error: Exception) -> None:
        self._frames.put_nowait(error)
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(error)


async def listen(url: str, conversation: str) -> None:
    """Print each event of a conversation, whoever speaks there, until somebody ends this."""
    async with BrainSocket(url, os.environ["BRAIN_KEY"]) as brain:
        await brain.subscribe(conversation)
        async for frame in brain.frames():
            print(json.dumps(frame), flush=True)


async def say(url: str, conversation: str, text: str) -> None:
    """Say `text` in a conversation, and print the answer as it comes."""
    async with BrainSocket(url, os.environ["BRAIN_KEY"]) as brain:
        await brain.send(conversation, text)
        async for frame in brain.frames():
            event = frame.get("event", {})
            print(event.get("text", ""), end="", flush=True)
            if event.get("type") in ENDS:
                print()
                return


if __name__ == "__main__":
    if "BRAIN_KEY" not in os.environ or len(sys.argv) not in (3, 4) or "--help" in sys.argv:
        sys.exit("BRAIN_KEY=… python brain_ws.py URL CONVERSATION [TEXT]: see the beginning of this file")
    with suppress(KeyboardInterrupt):
        asyncio.run(listen(*sys.argv[1:]) if len(sys.argv) == 3 else say(*sys.argv[1:]))
