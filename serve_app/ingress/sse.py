"""Server-sent events (WHATWG HTML, section 9.2): the lines, and the response that writes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from domain.events import DELTA, FAILED, Event
from serve_app.ingress import metrics
from serve_app.ingress.context import visit_of
from serve_app.ingress.shapes import event_json

KEEP_ALIVE = b": keep-alive\n\n"


def lines(batch: list[Event]) -> bytes:
    """A whole batch of events as one piece of the stream; a comment where there is none."""
    return b"".join(map(_event, batch)) if batch else KEEP_ALIVE


def event_body(event: Event) -> dict[str, Any]:
    """What an event says, as JSON."""
    carried = event.data if event.type == DELTA else event_json(event.data)
    if event.type == FAILED and carried.get("message") is None:
        carried = {"error": carried.get("error")}  # no text was kept
    return {"type": event.type, "turn_id": event.turn_id, "attempt": event.attempt, "n": event.n, **carried}


def _event(event: Event) -> bytes:
    head = f"id: {event.turn_id}/{event.attempt}/{event.n}\nevent: {event.type}\ndata: "
    return head.encode() + orjson.dumps(event_body(event)) + b"\n\n"


def data(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


class EventStream(Response):
    """Writes `pieces` as they come. When the client leaves, the iteration is closed, and nothing else happens.

    `pieces` gives (bytes, whether they hold text of the reply).
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[tuple[bytes, bool]], headers: dict[str, str] | None = None) -> None:
        self.status_code = 200
        self.background = None
        self._pieces: Any = pieces
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.current_task()
        assert writer is not None
        left = False

        def leave(_: Any) -> None:
            nonlocal left
            left = True
            writer.cancel()

        watch = asyncio.ensure_future(_departure(receive))
        watch.add_done_callback(leave)
        metrics.OPEN_STREAMS.inc()
        try:
            async with aclosing(self._pieces):
                await self._write(scope, send)
        except asyncio.CancelledError:
            if not left or writer.uncancel() > 0:
                raise
        except OSError:
            return  # the client left while we were writing
        finally:
            metrics.OPEN_STREAMS.dec()
            watch.remove_done_callback(leave)
            watch.cancel()

    async def _write(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        visit, waiting = visit_of(scope), True
        async for piece, has_text in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if waiting and has_text:
                waiting = False
                metrics.FIRST_DELTA.observe(visit.elapsed())
                if visit.admitted is not None:
                    visit.admitted.first_text()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _departure(receive: Receive) -> None:
    with suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            continue


async def while_present(receive: Receive, call: Any) -> Any:
    """The result of `call`, which is cancelled when the client leaves; `ClientDisconnect` then."""
    work, watch = asyncio.ensure_future(call), asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect()
        return await work
    finally:
        work.cancel()
        watch.cancel()
