"""Several models answer one turn side by side, each told in the stream as it speaks; one of them becomes the reply.

The sides run in one process, each a generation of its own. When all have ended that must, the chosen text follows as
the turn's text, so that a client which knows nothing of candidates misses nothing.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from actors.choice import Choice
from actors.judging import judged
from actors.run import Ground, TurnRun
from actors.telling import Events
from domain.errors import BrainError, Retryable, Unavailable
from domain.events import CANDIDATE_COMPLETED, CANDIDATE_DELTA, DELTA, MODEL
from domain.generation import Attempt, GenerationRequest, Outcome, Why
from domain.ids import new_id
from domain.ledger import Version

AGAIN = 0.3  # seconds between two wishes to end a side: the first may come before the side does


@dataclass(eq=False, slots=True)
class Side:
    """One of the models. `error`: why its process could not answer at all."""

    choice: Choice
    request: GenerationRequest
    outcome: Outcome | None = None
    error: Retryable | None = None

    @property
    def completed(self) -> bool:
        return self.outcome is not None and self.outcome.ending == "completed"


async def answer_side_by_side(run: TurnRun, opening: Events) -> Outcome:
    """Ask all models of the turn and choose. Raises what a side raised if it was the same for all of them."""
    live = run.live
    async with run.understood() as ground:
        await run.recalled()
        choices = [run.choose(ground, model) for model in live.asked.models]
        run.choice = choices[0]
        await run.say(opening)
        if live.cancelled:
            return Outcome("cancelled")
        sides = [
            Side(one, replace(run.request(one, ground), n=max(run.live.n, 1), side=index))
            for index, one in enumerate(choices)
        ]
        live.sides = tuple(side.request for side in sides)
        run.marks["generation"] = time.monotonic()
        order = await _all(run, sides)
        chosen, reason, judge = await _kept(run, ground, order, sides)
    run.told |= {"side_by_side": _told(run, sides, chosen, judge)}
    attempts = [
        attempt
        for side in sides
        if side.outcome is not None
        for attempt in _charged(side.outcome, "side", reply=side is chosen)
    ]
    attempts += _charged(judge, "judge", reply=False) if judge else []
    if run.live.cancelled:
        return Outcome("cancelled", attempts=tuple(attempts))
    if chosen is None or chosen.outcome is None:
        failed = next(side.outcome for side in sides if side.outcome is not None)
        return replace(failed, text="", usage=None, deltas=(), models=(), attempts=tuple(attempts), unanswered=None)
    run.choice = _as_chosen(chosen, sides, reason)
    if live.asked.keep == "all":
        run.versions = tuple(_version(side) for side in sides if side.completed and side is not chosen)
    text = chosen.outcome.text
    model: Events = [(MODEL, {"model": chosen.request.model, "reason": reason})]
    await run.say([*model, (DELTA, {"text": text})] if text else model)
    return replace(chosen.outcome, deltas=(), models=(), attempts=tuple(attempts), unanswered=None)


async def end_sides(run: TurnRun) -> None:
    """End the sides that an earlier owner has started."""
    live = run.live
    for index in range(len(live.asked.models) + 1):
        side = GenerationRequest(run.key.tenant, live.id, live.attempt, "", [], join=True, side=index)
        with suppress(Retryable):
            await run.parts.llm.cancel(side)


async def _all(run: TurnRun, sides: list[Side]) -> list[Side]:
    """Wait for the sides, or for the first that completes; those that completed, in the order in which they did."""
    waiting = {asyncio.create_task(_one(run, side)): side for side in sides}
    order: list[Side] = []
    try:
        while waiting:
            over = bool(order) and run.live.asked.keep == "first"
            for request in [side.request for side in waiting.values() if over]:
                with suppress(Retryable):
                    await run.parts.llm.cancel(request)
            done, _ = await asyncio.wait(waiting, timeout=AGAIN if over else None, return_when=asyncio.FIRST_COMPLETED)
            for side in [waiting.pop(task) for task in done]:
                order += [side] if side.completed else []
                await _tell(run, side)
    finally:
        for task in waiting:
            task.cancel()
    errors = [side.error for side in sides if side.error is not None]
    if len(errors) == len(sides):
        raise errors[0]
    for side in sides:
        if side.error is not None:
            await run.say([(CANDIDATE_COMPLETED, _ending(side, _body(side.error, run.live.id)))])
    return order


async def _one(run: TurnRun, side: Side) -> None:
    try:
        outcome = await run.parts.llm.generate(side.request)
    except Retryable as error:
        side.error = error
        return
    if outcome.ending == "elsewhere":
        side.error = Unavailable("another process answers for this side")
    else:
        side.outcome = outcome


async def _tell(run: TurnRun, side: Side) -> None:
    """Remember what the side has said in the stream, and tell that it has ended."""
    outcome, at = side.outcome, 0
    if outcome is None:
        return
    for n, length in outcome.deltas:
        text = outcome.text[at : at + length]
        run.live.note(n, [(CANDIDATE_DELTA, {"index": side.request.side, "model": side.request.model, "text": text})])
        at += length
    if outcome.unanswered is not None:
        run.live.unanswered.append(outcome.unanswered)
    await run.say([(CANDIDATE_COMPLETED, _ending(side, outcome.error))])


def _ending(side: Side, error: dict[str, Any] | None) -> dict[str, Any]:
    usage = side.outcome.usage if side.outcome else None
    told = {"index": side.request.side, "model": side.request.model, "usage": usage and usage.model_dump()}
    return {**told, "error": error} if error else told


def _body(error: BrainError, turn_id: str) -> dict[str, Any]:
    return {"message": str(error), "type": error.type, "param": turn_id, "code": error.code}


async def _kept(
    run: TurnRun, ground: Ground, order: list[Side], sides: list[Side]
) -> tuple[Side | None, str, Outcome | None]:
    """The side whose text is the reply, why, and what the judge said."""
    keep = run.live.asked.keep
    if not order or run.live.cancelled:
        return None, "", None
    if keep == "first":
        return order[0], "the first that completed", None
    completed = [side for side in sides if side.completed]
    if keep == "all" or len(completed) == 1:
        return completed[0], "the first named" if keep == "all" else "the only one that completed", None
    texts = [(side.request.model, side.outcome.text if side.outcome else "") for side in completed]
    place, reason, judge = await judged(run, ground, texts, len(sides))
    return completed[place], reason, judge


def _as_chosen(chosen: Side, sides: list[Side], reason: str) -> Choice:
    """The choice as the trace tells it: the models that were asked are its candidates."""
    candidates = [
        {**told, "reason": reason if side is chosen else "not chosen"}
        for side in sides
        for told in side.choice.selection.candidates
    ]
    recorded = [told for side in sides for told in side.choice.situation["candidates"]]
    return replace(
        chosen.choice,
        selection=replace(chosen.choice.selection, reason=reason, candidates=candidates),
        situation={**chosen.choice.situation, "candidates": recorded},
    )


def _charged(outcome: Outcome, why: Why, reply: bool) -> list[Attempt]:
    return [
        replace(attempt, why=why if attempt.why == "first" else attempt.why, reply=reply and attempt.reply)
        for attempt in outcome.attempts
    ]


def _version(side: Side) -> Version:
    assert side.outcome is not None
    cost = side.choice.selection.route.model.cost_usd(side.outcome.usage)
    return Version(
        new_id("msg"),
        side.outcome.text,
        side.request.model,
        side.outcome.usage,
        None if cost is None else float(cost),
    )


def _told(run: TurnRun, sides: list[Side], chosen: Side | None, judge: Outcome | None) -> dict[str, Any]:
    return {
        "keep": run.live.asked.keep,
        "chosen": chosen.request.side if chosen else None,
        "judge": judge and {"model": judge.model, "said": judge.text[:200], "ending": judge.ending},
        "sides": [
            {
                "index": side.request.side,
                "model": side.request.model,
                "ending": side.outcome.ending if side.outcome else "failed",
                "characters": len(side.outcome.text) if side.outcome else 0,
                "error": str(side.error) if side.error else side.outcome and side.outcome.error,
            }
            for side in sides
        ],
    }
