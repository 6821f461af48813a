"""Calls the tools that a generation asks for, and tells the next generation of the same attempt what they gave.

Each call is written down before it is made and its result after, by the conversation's owner. An owner who takes a
turn over finds the rounds in Postgres and in the journal: what was done counts, what was begun is repeated only where
it may be.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from actors.run import TurnRun
from domain.errors import BrainError, BudgetExceeded, Retryable, Unavailable
from domain.events import DELTA
from domain.generation import Outcome
from domain.ledger import total
from domain.ports import Progress
from domain.tool_calls import CallState, Round, ToolCall, parsed, rounds_of
from domain.tools import ToolAnswer

log = logging.getLogger("brain.turn")
LOOK = 0.2  # seconds between two looks whether a turn that waits for its tools was cancelled
AGAIN = (0.1, 0.5, 2.0)  # seconds until the end of a call is written down again
STATES = {"done": CallState.DONE, "failed": CallState.FAILED, "lost": CallState.UNKNOWN}
_CANCELLED = ToolAnswer("lost", "the turn was cancelled")


class Book(Protocol):
    """Where a turn's calls are written down. Waits while the database is away; raises `Fenced` and `NotFound`."""

    async def plan(self, calls: Sequence[ToolCall]) -> None: ...

    async def start(self, round: int, by: str) -> list[ToolCall]: ...


async def answered(run: TurnRun, outcome: Outcome, book: Book) -> Outcome:
    """The end of an attempt one of whose generations has ended with `outcome`: tools are called, and the model is asked
    again, for as long as it wants that. Raises as `TurnRun.generate`, and `BudgetExceeded`."""
    live = run.live
    while outcome.calls_tools and len(live.rounds) < run.parts.limits.tool_rounds:
        await use_tools(run, outcome, book)
        if live.cancelled:
            return Outcome("cancelled", live.earlier, model=outcome.model)
        spent = total(live.calls)
        if live.held is not None and spent is not None and spent >= live.held:
            raise BudgetExceeded("the budget that was held for this turn is spent; its tools were called")
        outcome = await run.generate([])
    return outcome


async def use_tools(run: TurnRun, outcome: Outcome, book: Book) -> None:
    """Make the calls of a generation that has just ended."""
    live, number = run.live, len(run.live.rounds)
    await run.offered()
    await book.plan(_planned(run, outcome, number))
    made = await _made(run, number, book)
    live.rounds.append(Round(tuple(made), outcome.text[len(live.earlier) :]))
    _heard(run, number, outcome)
    live.earlier = outcome.text


async def take_up_rounds(run: TurnRun, progress: Progress | None, book: Book) -> None:
    """Learn what earlier owners did; what they have begun and not ended is ended now."""
    live = run.live
    ends = progress.rounds if progress is not None else ()
    calls = await _stored(run)
    if not calls and not ends:
        return
    await run.offered()
    known = {call.round for call in calls}
    live.rounds = rounds_of(calls)
    for end in ends:
        if end.number not in known:
            await book.plan(_planned(run, end.outcome, end.number))
        if end.number not in live.heard:
            _heard(run, end.number, end.outcome)
    texts = _texts(progress)
    rounds = rounds_of(await _stored(run) if ends else calls)
    live.rounds = []
    for one in rounds:
        number = one.calls[0].round
        made = one.calls if all(call.state.ended for call in one.calls) else await _made(run, number, book)
        live.rounds.append(Round(tuple(made), texts.get(number, "")))
    if progress is not None and ends:
        spoken = [event for event in progress.events if event.type == DELTA and event.n <= ends[-1].n]
        live.earlier = "".join(event.data["text"] for event in spoken)
        live.spoken |= {event.n: len(event.data["text"]) for event in spoken}


async def _stored(run: TurnRun) -> list[ToolCall]:
    """The calls that are written down. Waits while the database is away."""
    while True:
        try:
            return await run.parts.store.tool_calls(run.key.tenant, run.live.id)
        except Unavailable:
            await asyncio.sleep(AGAIN[1])


def _texts(progress: Progress | None) -> dict[int, str]:
    """What each round of the current attempt said."""
    texts: dict[int, str] = {}
    after = 0
    for end in progress.rounds if progress is not None else ():
        said = [one.data["text"] for one in progress.events if one.type == DELTA and after < one.n <= end.n]  # type: ignore[union-attr]
        texts[end.number], after = "".join(said), end.n
    return texts


def _heard(run: TurnRun, number: int, outcome: Outcome) -> None:
    """Account for a generation of this attempt that others follow."""
    live = run.live
    live.calls = run.calls(outcome)
    live.tried = (*live.tried, *outcome.attempts)
    live.used.append(outcome.usage)
    cost = run.cost(outcome)
    live.spent = cost if live.spent is None else live.spent + (cost or 0)
    live.heard.add(number)
    live.prefix = ""  # it stands in what the round has said
    for n, length in outcome.deltas:
        live.spoken[n] = length
        live.n = max(live.n, n)
    for n, model, reason in outcome.models:
        live.said[n] = {"type": "turn.model", "model": model, "reason": reason}
        live.n = max(live.n, n)
    if outcome.unanswered is not None:
        live.unanswered.append(outcome.unanswered)


def _planned(run: TurnRun, outcome: Outcome, number: int) -> list[ToolCall]:
    limits, live = run.parts.limits, run.live
    before = sum(len(one.calls) for one in live.rounds)
    ids = {call.call_id for one in live.rounds for call in one.calls}
    planned: list[ToolCall] = []
    for place, asked in enumerate(outcome.tool_calls):
        function = asked.get("function") or {}
        name, arguments = str(function.get("name") or "")[:200], str(function.get("arguments") or "{}")
        call_id = str(asked.get("id") or f"call_{number}_{place}")[:100]
        if call_id in ids:
            call_id = f"{call_id}_{number}_{place}"
        ids.add(call_id)
        tool = run.offer.find(name)
        refused: str | None = None
        if tool is None:
            refused = "there is no such tool"
        elif before + place >= limits.tool_calls:
            refused = f"a turn makes {limits.tool_calls} calls at the most"
        elif len(arguments) > limits.tool_arguments:
            arguments, refused = "{}", "its arguments are too long"
        elif parsed(arguments) is None:
            refused = "its arguments are no JSON object"
        planned.append(
            ToolCall(
                number,
                place,
                call_id,
                name,
                tool.server if tool else "",
                tool.server_name if tool else "",
                tool.tool if tool else "",
                arguments.replace("\0", ""),
                tool.repeatable if tool else True,
                CallState.FAILED if refused else CallState.PLANNED,
                refused,
            )
        )
    return planned


async def _made(run: TurnRun, number: int, book: Book) -> list[ToolCall]:
    """Make what is to be made of a round; all its calls, in order, as they ended."""
    live = run.live
    calls = await book.start(number, str(uuid.uuid4()))
    making = {asyncio.create_task(_make(run, call)): call for call in calls if call.state is CallState.STARTED}
    try:
        waiting = set(making)
        while waiting and not live.cancelled:
            _, waiting = await asyncio.wait(waiting, timeout=LOOK)
    finally:
        for task in making:
            task.cancel()
    ended = {call.place: call for call in calls}
    for task, call in making.items():
        if task.done() and not task.cancelled():
            ended[call.place] = task.result()
        else:
            ended[call.place] = await _ended(run, call, _CANCELLED)
    return [ended[place] for place in sorted(ended)]


async def _make(run: TurnRun, call: ToolCall) -> ToolCall:
    limits, began = run.parts.limits, time.monotonic()
    try:
        async with asyncio.timeout(limits.tool_timeout + 1):
            answer = await run.parts.tools.call(
                run.key.tenant,
                call.server,
                call.tool,
                parsed(call.arguments) or {},
                call.key(run.live.id),
                limits.tool_timeout,
            )
    except (BrainError, TimeoutError) as error:  # the call may have been made
        words = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
        answer = ToolAnswer("lost", words, (time.monotonic() - began) * 1000)
    if answer.status == "lost" and call.repeatable:
        answer = replace(answer, status="failed")
    return await _ended(run, call, answer)


async def _ended(run: TurnRun, call: ToolCall, answer: ToolAnswer) -> ToolCall:
    text = answer.text.replace("\0", "")
    most = run.parts.limits.tool_result
    if len(text) > most:
        text = f"{text[:most]}\n(the rest was left out: {len(text) - most} characters)"
    ended = replace(call, state=STATES[answer.status], result=text, ms=round(answer.ms, 2))
    for pause in (*AGAIN, None):
        try:
            return await run.parts.store.end_call(run.key.tenant, run.live.id, ended)
        except Retryable:
            if pause is None:
                break
            await asyncio.sleep(pause)
    log.warning("how a call of a tool ended could not be written down", extra={"turn_id": run.live.id})
    return ended


def tools_told(run: TurnRun) -> dict[str, Any]:
    """For the trace: the calls of a turn, and the servers whose tools it was not offered."""
    left_out = [{"server": name, "reason": reason} for name, reason in run.offer.left_out]
    return {
        "tools": [call.told() for one in run.live.rounds for call in one.calls],
        "tools_left_out": left_out,
    }
