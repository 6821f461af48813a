"""The load: clients in a closed loop for a fixed time, every reply compared with what it must be.

One process with one event loop (uvloop where it is installed). Bytes are stored as they arrive and parsed after the
reply has ended; only the search for the first token happens on the way.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable

import aiohttp

from benchmarks.targets import Target, events
from benchmarks.workloads import Workload

TURNS_A_THREAD = 20
"""A client opens a new conversation after so many turns: the cells measure turns, not ever longer prompts."""


@dataclasses.dataclass(slots=True)
class Reply:
    """One request; times are seconds of the monotonic clock."""

    started: float
    first: float | None = None
    ended: float = 0
    tokens: int = 0
    events: int = 0
    wrong: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """The measured time, and every reply that overlaps it."""

    opens: float
    closes: float
    replies: list[Reply]


class LoadGenerator:
    """Puts one workload on one target."""

    def __init__(self, target: Target, load: Workload, expected: Callable[[str, int], str]) -> None:
        self._target, self._load, self._expected = target, load, expected
        self._numbers = itertools.count()
        self._replies: list[Reply] = []
        self._closes = 0.0

    async def run(self, warm_up: float, seconds: float) -> Window:
        """Load for `warm_up + seconds`; what runs at the end is awaited, so that its latency counts."""
        connections = aiohttp.TCPConnector(limit=0)
        patience = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connections, timeout=patience, read_bufsize=2**20) as session:
            opens = time.monotonic() + warm_up
            self._closes = opens + seconds
            await asyncio.gather(*(self._client(session) for _ in range(self._load.clients)))
        return Window(opens, self._closes, [reply for reply in self._replies if reply.ended > opens])

    async def _client(self, session: aiohttp.ClientSession) -> None:
        thread, turns = "", 0
        while time.monotonic() < self._closes:
            if self._target.keeps and turns % TURNS_A_THREAD == 0:
                thread = await self._target.open_thread(session)
            turns += 1
            reply = await self.turn(session, thread)
            self._replies.append(reply)
            if reply.wrong:
                await asyncio.sleep(0.05)  # a system that refuses everything must not look fast

    async def turn(self, session: aiohttp.ClientSession, thread: str) -> Reply:
        """One request, timed and judged."""
        prompt = f"Question {next(self._numbers)}: what can you tell me about the delivery of my order?"
        request = self._target.request(self._load.model, prompt, thread, self._load.streamed)
        reply = Reply(time.monotonic())
        body = bytearray()
        try:
            async with session.post(request.url, headers=request.headers, data=request.body) as answer:
                async for piece in answer.content.iter_any():
                    body += piece
                    if reply.first is None and self._load.streamed and self._has_text(bytes(body)):
                        reply.first = time.monotonic()
                reply.ended = time.monotonic()
                self._judge(reply, answer.status, bytes(body), prompt)
        except (aiohttp.ClientError, TimeoutError, RuntimeError, ValueError, TypeError, LookupError) as error:
            reply.ended = time.monotonic()
            reply.wrong = f"{type(error).__name__}: {error}"
        return reply

    def _has_text(self, body: bytes) -> bool:
        return any(self._target.text_of_event(event) for event in events(body))

    def _judge(self, reply: Reply, status: int, body: bytes, prompt: str) -> None:
        if status != 200:
            reply.wrong = f"{status} {body[:200]!r}"
            return
        if self._load.streamed:
            texts = [text for event in events(body) if (text := self._target.text_of_event(event))]
            text, reply.events = "".join(texts), len(texts)
            if not self._target.complete(body):
                reply.wrong = f"the stream broke off: {body[-100:]!r}"
        else:
            text = self._target.text_of_body(body)
        if text != self._expected(prompt, self._load.tokens):
            reply.wrong = reply.wrong or f"not the expected text: {text[:80]!r} …"
        reply.tokens = 0 if reply.wrong else self._load.tokens
