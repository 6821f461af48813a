"""Shadow answers: a sampled share of completed turns is also given to another model, to compare the two.

Off the hot path: after the turn's commit, a few at once in a host, and none while it is busy with others or stops. What
another model says reaches nobody; its usage is charged for, also where its host stops before the end, and the
comparison stands in the turn's trace.
"""

import asyncio
import hashlib
import logging
import time
from dataclasses import replace
from typing import Any

from actors.asides import generated, surely
from actors.choice import budget
from actors.parts import Parts
from actors.run import TurnRun
from domain.commands import Ended
from domain.errors import BrainError
from domain.generation import GenerationRequest, Outcome
from domain.ledger import charges, total
from domain.message import Message
from domain.model import Route
from domain.ports import Reply
from domain.turn import TurnStatus

log = logging.getLogger("brain.shadow")
SIDE = -1  # names the generation, which no stream tells


def shadow(run: TurnRun, reply: Reply, ended: Ended) -> None:
    """Have the turn answered a second time, if it is one of the sample and there is room for it."""
    parts, settings, choice = run.parts, run.settings, run.choice
    wanted = settings.shadow if settings is not None else None
    if (
        settings is None
        or wanted is None
        or choice is None
        or ended.message is None
        or ended.turn.status is not TurnStatus.COMPLETED
    ):
        return
    route = parts.catalog.find(wanted.model)
    if route is None or route.id == ended.message.model or not sampled(ended.turn.id, wanted.share):
        return
    held_up = settings.budget is not None and settings.budget.hard_usd is not None  # nothing was held for it
    asked = run.live.asked.parameters.get("max_tokens")
    if held_up or choice.prompt.tokens > budget(route.model, asked) or len(parts.shadows) >= parts.limits.shadows:
        return
    task = asyncio.create_task(_answer(run, route, reply, ended.message))
    parts.shadows.add(task)
    task.add_done_callback(parts.shadows.discard)


def sampled(turn_id: str, share: float) -> bool:
    """Whether the turn is one of `share`; the same for every process."""
    return int.from_bytes(hashlib.sha256(turn_id.encode()).digest()[:8]) < share * 2**64


async def _answer(run: TurnRun, route: Route, reply: Reply, message: Message) -> None:
    assert run.choice is not None
    live, began = run.live, time.monotonic()
    request = GenerationRequest(
        tenant=run.key.tenant,
        turn_id=live.id,
        attempt=live.attempt,
        model=route.id,
        messages=run.choice.prompt.messages,
        parameters=live.asked.parameters,
        intent=live.intent.name if live.intent else None,
        live=False,
        journal=False,
        kept=False,
        side=SIDE,
    )

    async def settle(outcome: Outcome) -> None:
        attempts = [replace(attempt, why="shadow", reply=False) for attempt in outcome.attempts]
        calls = charges(run.parts.catalog, attempts, max(len(reply.calls), 1) + 1)
        cost = total(calls)
        report = {
            "model": route.id,
            "ending": outcome.ending,
            "error": outcome.error,
            "reply": _figures(reply.trace, message.content, message.cost_usd),
            "shadow": {
                "characters": len(outcome.text),
                "total_ms": round((time.monotonic() - began) * 1000, 2),
                "first_token_ms": _first_token(outcome),
                "cost_usd": None if cost is None else float(cost),
                "usage": outcome.usage and outcome.usage.model_dump(),
            },
            "similarity": await _similarity(run.parts, message.content, outcome),
        }
        await run.parts.store.shadow(run.key, live.id, report, calls)

    try:
        outcome = await generated(run.parts, request, settle)
        await surely(run.parts, settle(outcome))
    except BrainError as error:
        log.info("no shadow answer of %s: %s", live.id, error)
    except Exception:
        log.exception("a shadow answer failed", extra={"turn_id": live.id})


def _figures(trace: dict[str, Any], text: str, cost: float | None) -> dict[str, Any]:
    said: dict[str, Any] = next((one for one in trace.get("attempts", ()) if one["status"] == "ok"), {})
    return {
        "characters": len(text),
        "total_ms": said.get("total_ms"),
        "first_token_ms": said.get("first_token_ms"),
        "cost_usd": cost,
    }


def _first_token(outcome: Outcome) -> float | None:
    return next((attempt.first_token_ms for attempt in outcome.attempts if attempt.status == "ok"), None)


async def _similarity(parts: Parts, text: str, other: Outcome) -> float | None:
    """Cosine of the texts' embeddings; None where there is no text, not all of it, or nobody to embed it."""
    if not text or not other.text or other.ending == "cancelled":
        return None
    try:
        vectors = [(await parts.classifier.classify(one)).embedding for one in (text, other.text)]
    except BrainError:
        return None
    return round(float(sum(a * b for a, b in zip(*vectors, strict=True))), 4)
