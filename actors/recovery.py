"""Follows a generation that another owner started, and begins another attempt where the generation itself is lost.

A running generation does not belong to the host. Its journal says which of three it is: sealed (it has ended: read its
text and finish), alive (its heartbeat is fresh: join it and wait), or dead (its process is gone).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from actors.parts import Parts
from actors.run import TurnRun, failure, opening
from actors.turn import LiveTurn
from domain.conversation import ConversationKey
from domain.errors import GenerationError, JournalUnavailable, NotFound, Overloaded, Unavailable
from domain.events import ACCEPTED, DELTA, INTENT, MODEL, RESET, Layout
from domain.generation import GenerationRequest, Outcome
from domain.message import Intent
from domain.ports import Progress
from domain.turn import MAX_ATTEMPTS

POLL = 0.2  # seconds between two looks at a generation that only its journal reaches
NextAttempt = Callable[[LiveTurn], Awaitable[None]]


async def bring_to_end(run: TurnRun, inherited: bool, next_attempt: NextAttempt) -> tuple[Outcome, Layout | None]:
    """The outcome of a turn and the layout of its stream, over as many attempts as it takes (`MAX_ATTEMPTS`)."""
    live, parts = run.live, run.parts
    while True:
        try:
            if inherited:
                found = await _inherit(run)
            else:
                found = await _begin(run, opening(live) if live.n == 0 else [])
        except Unavailable:
            await asyncio.sleep(POLL)
            found = await _inherit(run)
        if found is not None:
            return found
        if live.cancelled:
            progress = await _progress(parts, run.key, live)
            return _ended(live, progress, Outcome("cancelled"))
        if live.attempt >= MAX_ATTEMPTS:
            progress = await _progress(parts, run.key, live)
            error = GenerationError("the generation was lost three times")
            return _ended(live, progress, failure(error, live.id))
        await _supersede(parts, run.key, live)
        await next_attempt(live)
        live.attempt, live.n, live.said = live.attempt + 1, 0, {}
        inherited = False


async def _begin(run: TurnRun, first: list[tuple[str, dict[str, object]]]) -> tuple[Outcome, Layout | None] | None:
    """Start the current attempt; None if it must be followed by another one."""
    live = run.live
    deadline = time.monotonic() + run.parts.limits.admission
    while True:
        try:
            outcome = await run.generate(first if live.n == 0 else [])
            break
        except NotFound as error:
            outcome = failure(error, live.id)
            break
        except Overloaded as error:  # the turn stands in Postgres: it waits for its place at the model
            if live.cancelled:
                outcome = Outcome("cancelled")
                break
            if time.monotonic() > deadline:
                outcome = failure(error, live.id)
                break
            await asyncio.sleep(POLL)
    if outcome.ending == "elsewhere":
        return await _inherit(run)
    model = run.selection.route.model if run.selection else None
    if outcome.ending == "failed" and model and model.reset and outcome.text and live.attempt < MAX_ATTEMPTS:
        return None
    layout = live.layout(outcome)
    recorded = sum(length for _, length in outcome.deltas)
    if layout is None or recorded < len(outcome.text):  # a write of unknown end, or another writer: ask the stream
        progress = await _progress(run.parts, run.key, live)
        if progress is not None and progress.events:
            layout = _completed(_layout(progress), len(outcome.text))
    return outcome, layout


async def _inherit(run: TurnRun) -> tuple[Outcome, Layout | None] | None:
    """Follow the current attempt to its end; None if its generation is dead."""
    live, parts = run.live, run.parts
    while True:
        progress = await _progress(parts, run.key, live)
        if progress is not None:
            _remember(live, progress)
            if progress.sealed is not None:
                return _ended(live, progress, progress.sealed)
        request = live.request = _joining(run)
        if progress is None or progress.alive:
            try:
                if live.cancelled:
                    await parts.llm.cancel(request)
                outcome = await parts.llm.generate(request)
            except (Unavailable, Overloaded):
                outcome = Outcome("elsewhere")
            if outcome.ending != "elsewhere":
                layout = live.layout(outcome)
                if layout is None and (whole := await _progress(parts, run.key, live)) and whole.events:
                    layout = _completed(_layout(whole), len(outcome.text))
                return outcome, layout
            if progress is None:
                return None
            await asyncio.sleep(POLL)
        elif progress.closed or live.cancelled or any(event.type == DELTA for event in progress.events):
            return None
        else:  # nothing was said yet: the same attempt begins again
            first = opening(live) if not progress.events else []
            try:
                return await _begin(run, first)
            except Unavailable:
                await asyncio.sleep(POLL)


def _ended(live: LiveTurn, progress: Progress | None, outcome: Outcome) -> tuple[Outcome, Layout | None]:
    """An outcome with the text that the journal holds."""
    if progress is None:
        return outcome, None
    text = "".join(event.data["text"] for event in progress.events if event.type == DELTA)
    return replace(outcome, text=text), _layout(progress)


def _layout(progress: Progress) -> Layout:
    layout: Layout = []
    for event in progress.events:
        if event.type == DELTA:
            layout.append(len(event.data["text"]))
        elif event.type in (ACCEPTED, INTENT, MODEL, RESET):
            layout.append({"type": event.type, **({} if event.type == ACCEPTED else event.data)})
    return layout


def _completed(layout: Layout, length: int) -> Layout:
    """The layout with one more delta for what the stream never got."""
    rest = length - sum(entry for entry in layout if isinstance(entry, int))
    return [*layout, rest] if rest > 0 else layout


def _remember(live: LiveTurn, progress: Progress) -> None:
    for event in progress.events:
        live.n = max(live.n, event.n)
        if event.type in (ACCEPTED, INTENT, MODEL, RESET):
            live.said[event.n] = {"type": event.type, **({} if event.type == ACCEPTED else event.data)}
        if event.type == INTENT and live.intent is None:
            live.intent = Intent.model_validate(event.data["intent"])
    if not live.opened.done():
        live.opened.set_result(bool(progress.events))


def _joining(run: TurnRun) -> GenerationRequest:
    live = run.live
    if live.request is not None and live.request.attempt == live.attempt:
        return replace(live.request, join=True)
    return GenerationRequest(run.key.tenant, live.id, live.attempt, "", [], join=True)


async def _progress(parts: Parts, key: ConversationKey, live: LiveTurn) -> Progress | None:
    try:
        return await parts.journal.progress(key.tenant, live.id, live.attempt)
    except JournalUnavailable:
        return None


async def _supersede(parts: Parts, key: ConversationKey, live: LiveTurn) -> None:
    try:
        await parts.journal.supersede(key.tenant, live.id, live.attempt)
    except JournalUnavailable:
        return
