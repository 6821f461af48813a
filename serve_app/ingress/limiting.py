"""A request and the limits of its caller: what it takes when it comes, and who sees to it when it has been answered."""

import asyncio
from contextlib import suppress

from starlette.requests import Request

from domain.errors import NotFound, Overloaded, Unavailable
from domain.generation import Outcome
from domain.limits import RateLimited, Use
from domain.message import Usage
from domain.tenant import Caller
from serve_app.ingress.bodies import idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.detached import detach
from serve_app.ingress.limiter import Entry
from serve_app.ingress.parts import Parts, parts_of

BYTES_A_TOKEN = 4  # of a body, until the model's own count is known
UNKNOWN = 250  # tokens taken for a body that does not say how long it is
FIRST, LONGEST = 0.5, 5.0  # seconds between looks at a turn that nobody follows
UNHEARD = 10.0  # seconds after which a turn that is not there was never accepted


async def limit(request: Request, caller: Caller, use: Use) -> None:
    """Let the request in, or raise `RateLimited`. What was accepted before is answered again, whatever the limits."""
    visit = visit_of(request.scope)
    try:
        entry = await parts_of(request).limiter.enter(caller, use, _tokens(request))
    except RateLimited as refusal:
        if not await _known(request, caller):
            raise
        visit.limits = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        return
    if entry is not None:
        visit.entry, visit.limits = entry, entry.headers


def used(usage: Usage | None) -> int | None:
    """Tokens by the model's own count."""
    return None if usage is None else usage.total_tokens


def hand_on(request: Request, generation: "asyncio.Future[Outcome]") -> Entry | None:
    """What the request took is settled when `generation` has ended, whoever still waits for it."""
    entry = visit_of(request.scope).entry
    if entry is not None:
        entry.handed_on = True
        generation.add_done_callback(lambda done: entry.end(_of_generation(done)))
    return entry


def leave(parts: Parts, entry: Entry) -> None:
    """The request has been answered, or its client has left: a turn of it may go on."""
    if entry.over or entry.handed_on:
        return
    if entry.turn is None:
        entry.end(0)
    else:
        detach(_until_ended(parts, entry, entry.turn))


async def _until_ended(parts: Parts, entry: Entry, turn_id: str) -> None:
    pause, looked = FIRST, 0.0
    try:
        while not entry.over:
            await asyncio.sleep(pause)
            looked += pause
            pause = min(pause * 2, LONGEST)
            try:
                turn = await parts.reader.turn(entry.tenant, turn_id)
            except NotFound:
                if looked >= UNHEARD:
                    entry.end(0)
            except Unavailable:
                continue
            else:
                if turn.status.ended:
                    entry.end(used(turn.usage))
    finally:
        entry.end(None)  # whatever went wrong, its place is not held for ever


def _of_generation(done: "asyncio.Future[Outcome]") -> int | None:
    """None where it is not known: what was taken stands."""
    if done.cancelled():
        return None
    if (error := done.exception()) is not None:
        return 0 if isinstance(error, Overloaded) else None  # no model was asked
    return used(done.result().usage)


async def _known(request: Request, caller: Caller) -> bool:
    if request.method != "POST" or (key := idempotency_key(request)) is None:
        return False
    with suppress(Unavailable):
        return await parts_of(request).reader.key_is_known(caller.tenant, caller.key_id, key)
    return False


def _tokens(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return max(1, int(length) // BYTES_A_TOKEN) if length.isdigit() else UNKNOWN
