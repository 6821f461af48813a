"""A client that follows one turn to its end and reconnects when its connection breaks."""

import asyncio
import dataclasses
import time
from typing import Any

import aiohttp
import orjson

from benchmarks.targets import data_of, events

FINAL = ("turn.completed", "turn.failed", "turn.cancelled")


@dataclasses.dataclass(slots=True)
class Followed:
    """What the client saw. `longest_pause`: seconds between two events before the end. `closing`: from the last delta
    to the end. `gaps`: ids whose number was not the next."""

    text: str = ""
    events: int = 0
    connections: int = 0
    attempts: int = 1
    longest_pause: float = 0
    closing: float = 0
    last_id: str = ""
    ended: str | None = None
    gaps: list[str] = dataclasses.field(default_factory=list)
    _last_at: float | None = None
    _delta_at: float = 0
    _last: tuple[int, int] = (1, 0)

    def take(self, event: dict[str, Any]) -> None:
        """One event, in the order of arrival."""
        now = time.monotonic()
        if self._last_at is not None and event["type"] not in FINAL:
            self.longest_pause = max(self.longest_pause, now - self._last_at)
        self._last_at = now
        self.events += 1
        attempt, n = event["attempt"], event["n"]
        self.last_id = f"{event['turn_id']}/{attempt}/{n}"
        if (attempt, n) != (self._last[0], self._last[1] + 1) and not (attempt > self._last[0] and n == 1):
            self.gaps.append(self.last_id)
        self._last, self.attempts = (attempt, n), attempt
        match event["type"]:
            case "turn.reset":
                self.text = ""
            case "message.delta":
                self.text += event["text"]
                self._delta_at = now
            case final if final in FINAL:
                self.ended = final
                self.closing = now - self._delta_at


async def follow(session: aiohttp.ClientSession, url: str, conversation: str, body: dict[str, Any]) -> Followed:
    """Send a message and follow its turn, through GET /turns/{id}/events once the first connection is gone."""
    seen = Followed()
    request: dict[str, Any] = {"url": f"{url}/api/v1/conversations/{conversation}/messages", "json": body}
    method = "POST"
    while seen.ended is None:
        try:
            async with session.request(method, **request) as answer:
                if answer.status != 200:
                    raise aiohttp.ClientError(f"{answer.status} {(await answer.text())[:200]}")
                seen.connections += 1
                await _read(answer, seen)
        except (aiohttp.ClientError, TimeoutError):
            if not seen.last_id:
                raise
        if seen.ended is None:
            await asyncio.sleep(0.05)
            turn = seen.last_id.split("/")[0]
            method = "GET"
            request = {"url": f"{url}/api/v1/turns/{turn}/events", "headers": {"last-event-id": seen.last_id}}
    return seen


async def _read(answer: aiohttp.ClientResponse, seen: Followed) -> None:
    rest = b""
    async for piece in answer.content.iter_any():
        rest += piece
        for event in events(rest):
            if data := data_of(event):
                seen.take(orjson.loads(data))
        rest = rest.rpartition(b"\n\n")[2]
