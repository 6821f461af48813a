"""Follows a generation that another owner started, and begins another attempt where the generation itself is lost.

A running generation does not belong to the host. Its journal says which of three it is: sealed (it has ended: read its
text and finish), alive (its heartbeat is fresh: join it and wait), or dead (its process is gone). A dead one is gone on
from its text where the model allows it, else the turn is reset.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from actors.claiming import checked, said_since, taken_over
from actors.lost import continues, lost_calls, take_up, text_of
from actors.run import TurnRun
from actors.sides import answer_side_by_side, end_sides
from actors.telling import Events, failure, opening
from actors.tooling import Book, answered, take_up_rounds, use_tools
from actors.turn import LiveTurn, unjournalled
from domain.errors import BudgetExceeded, GenerationError, JournalUnavailable, NotFound, Overloaded, Unavailable
from domain.events import ACCEPTED, CANDIDATE_COMPLETED, CANDIDATE_DELTA, DELTA, INTENT, MODEL, RESET, Layout
from domain.generation import GenerationRequest, Outcome
from domain.ledger import Charge
from domain.message import Intent
from domain.ports import Progress
from domain.turn import MAX_ATTEMPTS

POLL = 0.2  # seconds between two looks at a generation that only its journal reaches
TOLD = frozenset({ACCEPTED, INTENT, MODEL, RESET, CANDIDATE_DELTA, CANDIDATE_COMPLETED})
Found = tuple[Outcome, Layout | None]
NextAttempt = Callable[[LiveTurn, tuple[Charge, ...]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt that must be followed by another one, and what it is charged for. `silent`: its stream is empty."""

    calls: tuple[Charge, ...] = ()
    silent: bool = False


async def bring_to_end(run: TurnRun, inherited: bool, next_attempt: NextAttempt, book: Book) -> Found:
    """The outcome of a turn and the layout of its stream, over as many attempts as it takes (`MAX_ATTEMPTS`)."""
    live = run.live
    while True:
        unsure = inherited and live.begun  # what was said is known by the journal alone
        try:
            if inherited:
                found = await _inherit(run, unsure, book)
            else:
                found = await _begin(run, opening(live) if live.n == 0 else [], book)
        except Unavailable:
            await asyncio.sleep(POLL)
            found = await _inherit(run, unsure, book)
        if isinstance(found, Lost):
            live.calls, lost = found.calls, found
            if live.cancelled:
                found = _ended(await _progress(run), Outcome("cancelled"))
            elif live.attempt + live.continued >= MAX_ATTEMPTS:
                error = GenerationError("the generation was lost three times")
                found = _ended(await _progress(run), failure(error, live.id))
        if not isinstance(found, Lost):
            outcome, layout = found
            if not layout or (unsure and layout == unjournalled()):
                return _retold(live, outcome)
            if layout == unjournalled() and live.attempt > 1:  # readers have the attempt before, whatever it said
                return outcome, _whole(live, outcome)
            return found
        if lost.silent:
            await run.say(opening(live))
        await _supersede(run)
        await next_attempt(live, found.calls)
        live.begin_attempt()
        inherited = False


def _retold(live: LiveTurn, outcome: Outcome) -> Found:
    """The same outcome as another attempt: nobody knows how much of this one's text readers have had, for its journal
    was lost. The commit of its end begins that attempt, so that until then the next owner can still find the outcome.
    """
    kept = (live.calls, live.tried, live.used, live.spent)
    live.begin_attempt()
    live.calls, live.tried, live.used, live.spent = kept
    return outcome, _whole(live, outcome)


def _whole(live: LiveTurn, outcome: Outcome) -> Layout:
    """A later attempt of which readers have had nothing yet."""
    layout: Layout = [{"type": kind, **data} for kind, data in opening(live)]
    return [*layout, len(outcome.text)] if outcome.text else layout


async def _begin(run: TurnRun, first: Events, book: Book) -> Found | Lost:
    """Start the current attempt, or go on with it."""
    live = run.live
    deadline = time.monotonic() + run.parts.limits.admission
    while True:
        try:
            told = first if live.n == 0 else []
            if live.asked.models:
                outcome = await answer_side_by_side(run, told)
            else:
                outcome = await answered(run, await run.generate(told), book)
            break
        except (NotFound, BudgetExceeded) as error:
            outcome = replace(failure(error, live.id), text=live.said_so_far)
            break
        except Overloaded as error:  # the turn stands in Postgres: it waits for its place at the model
            if live.cancelled:
                outcome = Outcome("cancelled", live.said_so_far)
                break
            if time.monotonic() > deadline:
                outcome = replace(failure(error, live.id), text=live.said_so_far)
                break
            await asyncio.sleep(POLL)
    if outcome.ending == "elsewhere":
        return await _inherit(run, False, book)
    model = run.choice.selection.route.model if run.choice else None
    again = live.attempt + live.continued < MAX_ATTEMPTS
    if outcome.ending == "failed" and model and model.reset and outcome.text and again:
        return Lost(run.calls(outcome))
    outcome = await checked(run, outcome)
    layout = live.layout(outcome)
    recorded = sum(live.spoken.values()) + sum(length for _, length in outcome.deltas)
    if layout is None or recorded < len(outcome.text):  # a write of unknown end, or another writer: ask the stream
        layout = await _told(run, outcome) or layout
    return outcome, layout


async def _inherit(run: TurnRun, unsure: bool, book: Book) -> Found | Lost:
    """Follow the current attempt to its end; it is lost if its generation is dead.

    So is one of an empty journal, unless its owner knows that nothing was said (not `unsure`, no `n`).
    """
    live, parts, known = run.live, run.parts, -1  # rounds that are known to have ended
    deadline = time.monotonic() + parts.limits.admission
    while True:
        progress = await _progress(run)
        if progress is not None:
            _remember(live, progress)
        ended = len(progress.rounds) if progress is not None else 0
        if parts.has_tools and not live.asked.models and ended != known:
            await take_up_rounds(run, progress, book)
            known = ended
        if progress is not None and progress.sealed is not None:
            return await taken_over(run, *_ended(progress, progress.sealed))
        request = live.request = _joining(run)
        emptied = progress is not None and not progress.events and (unsure or live.n > 0)
        if live.asked.models:  # nobody but their first owner can tell how the sides ended
            if not progress or emptied or progress.closed or live.cancelled or _has_candidates(progress):
                await end_sides(run)
                return Lost(lost_calls(run, progress), silent=emptied and live.n == 0)
        elif progress is None or progress.alive or emptied:
            try:
                if live.cancelled:
                    await parts.llm.cancel(request)
                outcome = await parts.llm.generate(request)
            except (Unavailable, Overloaded):
                if emptied and time.monotonic() < deadline:
                    await asyncio.sleep(POLL)
                    continue  # it may run there all the same
                outcome = Outcome("elsewhere")
            if outcome.calls_tools:
                return await _go_on(run, outcome, book)
            if outcome.ending != "elsewhere":
                outcome = await said_since(run, outcome)
                layout = live.layout(outcome)
                return await taken_over(run, outcome, layout if layout is not None else await _told(run, outcome))
            if progress is None:
                return Lost(live.calls)
            if emptied and not progress.alive:
                return Lost(live.calls, silent=live.n == 0)
            await asyncio.sleep(POLL)
            continue
        after = progress.rounds[-1].n if progress.rounds else 0
        said = any(event.type == DELTA and event.n > after for event in progress.events)
        goes_on = not progress.closed and continues(run, progress)
        if progress.closed or live.cancelled or (said and not goes_on):
            return Lost(lost_calls(run, progress))
        asked = run.marks.get("generation")
        if goes_on:
            take_up(run, progress)
        try:  # the same attempt begins again, or goes on
            return await _begin(run, opening(live) if not progress.events else [], book)
        except Unavailable:
            if goes_on and run.marks.get("generation") == asked:
                live.continued -= 1  # no model was asked: this is no attempt yet
            await asyncio.sleep(POLL)


async def _go_on(run: TurnRun, outcome: Outcome, book: Book) -> Found | Lost:
    """Call the tools of a generation that an earlier owner started, and ask on."""
    await use_tools(run, outcome, book)
    if run.live.cancelled:
        cancelled = Outcome("cancelled", run.live.earlier, model=outcome.model)
        layout = run.live.layout(cancelled)
        return cancelled, layout if layout is not None else await _told(run, cancelled)
    return await _begin(run, [], book)


def _has_candidates(progress: Progress) -> bool:
    return any(event.type in (CANDIDATE_DELTA, CANDIDATE_COMPLETED) for event in progress.events)


def _ended(progress: Progress | None, outcome: Outcome) -> Found:
    """An outcome with the text that the journal holds."""
    if progress is None:
        return outcome, None
    return replace(outcome, text=text_of(progress)), _layout(progress)


async def _told(run: TurnRun, outcome: Outcome) -> Layout | None:
    """The layout of the stream as the journal holds it, with one more delta for what the stream never got."""
    progress = await _progress(run)
    if progress is None or not progress.events or progress.events[-1].n < max(run.live.known(outcome), default=0):
        return None  # it has lost what was in it
    layout = _layout(progress)
    rest = len(outcome.text) - sum(entry for entry in layout if isinstance(entry, int))
    return [*layout, rest] if rest > 0 else layout


def _layout(progress: Progress) -> Layout:
    layout: Layout = []
    for event in progress.events:
        if event.type == DELTA:
            layout.append(len(event.data["text"]))
        elif event.type in TOLD:
            layout.append({"type": event.type, **({} if event.type == ACCEPTED else event.data)})
    return layout


def _remember(live: LiveTurn, progress: Progress) -> None:
    if progress.events and progress.events[-1].n >= live.n:
        live.unanswered = []  # each of them is there, or never will be
    for event in progress.events:
        live.n = max(live.n, event.n)
        if event.type in TOLD:
            live.said[event.n] = {"type": event.type, **({} if event.type == ACCEPTED else event.data)}
        if event.type == INTENT and live.intent is None:
            live.intent = Intent.model_validate(event.data["intent"])
    if not live.opened.done():
        live.opened.set_result(bool(progress.events))


def _joining(run: TurnRun) -> GenerationRequest:
    live = run.live
    known = live.request
    if known is not None and (known.attempt, known.round) == (live.attempt, len(live.rounds)) and known.model:
        return replace(known, join=True)
    model, *others = reversed([said["model"] for _, said in sorted(live.said.items()) if said["type"] == MODEL] or [""])
    key = run.key
    return GenerationRequest(
        key.tenant,
        live.id,
        live.attempt,
        model,
        [],
        chain=tuple(others),
        join=True,
        session=key.conversation,
        round=len(live.rounds),
    )


async def _progress(run: TurnRun) -> Progress | None:
    live = run.live
    try:
        return await run.parts.journal.progress(run.key.tenant, live.id, live.attempt, run.epoch)
    except JournalUnavailable:
        return None


async def _supersede(run: TurnRun) -> None:
    try:
        await run.parts.journal.supersede(run.key.tenant, run.live.id, run.live.attempt, run.epoch)
    except JournalUnavailable:
        return
