"""A generation beside a turn: what it cost is charged for, also where nobody waits for its end any more.

No stream tells it and no next owner takes it over, so it is ended where its host stops, or loses the conversation.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from actors.parts import Parts
from domain.context import MESSAGE_OVERHEAD, estimate_tokens
from domain.errors import BrainError, NotFound
from domain.generation import Attempt, GenerationRequest, Outcome
from domain.message import Usage

log = logging.getLogger("brain.asides")
CANCELLED = 15.0  # seconds until a cancelled generation has told what it cost
CUT_OFF = 1.5  # the same where the host stops, which has a few seconds for all


async def generated(
    parts: Parts,
    request: GenerationRequest,
    settle: Callable[[Outcome], Coroutine[Any, Any, None]],
    within: float | None = None,
) -> Outcome:
    """What came of it, also when it was cancelled for taking longer than `within` seconds: its calls have cost
    something. Where this call is cancelled, `settle` gets what is known by then, see `surely`."""
    generation = asyncio.ensure_future(parts.llm.generate(request))
    try:
        await asyncio.wait((generation,), timeout=within)
        outcome = generation.result() if generation.done() else await _ended(parts, request, generation, CANCELLED)
    except asyncio.CancelledError:
        surely(parts, _cut_off(parts, request, generation, settle))
        raise
    except BaseException:
        generation.cancel()
        raise
    generation.cancel()
    return outcome


def surely(parts: Parts, settling: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Goes on where whoever awaits it is cancelled; a host that stops waits for it. Errors are logged."""
    task = asyncio.create_task(_logged(settling))
    parts.endings.add(task)
    task.add_done_callback(parts.endings.discard)
    return asyncio.shield(task)


async def _logged(settling: Coroutine[Any, Any, None]) -> None:
    try:
        await settling
    except NotFound as error:  # the conversation was deleted; the charge stands
        log.info("a generation beside a turn is told of nowhere: %s", error)
    except BrainError as error:
        log.warning("a generation beside a turn may not be charged for: %s", error)
    except Exception:
        log.exception("a generation beside a turn may not be charged for")


async def _cut_off(
    parts: Parts,
    request: GenerationRequest,
    generation: asyncio.Future[Outcome],
    settle: Callable[[Outcome], Coroutine[Any, Any, None]],
) -> None:
    try:
        outcome = await _ended(parts, request, generation, CUT_OFF)
    finally:
        generation.cancel()
    await settle(outcome)


async def _ended(
    parts: Parts, request: GenerationRequest, generation: asyncio.Future[Outcome], patience: float
) -> Outcome:
    """Cancel it, and give what it tells within so many seconds; else an estimate: its prompt was read, at least."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            with suppress(BrainError):
                await parts.llm.cancel(request)
            await asyncio.wait((generation,))
    return generation.result() if generation.done() else _estimate(parts, request)


def _estimate(parts: Parts, request: GenerationRequest) -> Outcome:
    route = parts.catalog.find(request.model)
    prompt = sum(estimate_tokens(str(one.get("content") or "")) + MESSAGE_OVERHEAD for one in request.messages)
    usage = Usage(prompt_tokens=prompt, completion_tokens=0, total_tokens=prompt)
    call = Attempt(
        request.model,
        route.provider.name if route else "",
        "error",
        "it has not told what it cost",
        started_at=time.time(),
        first_token_ms=None,
        total_ms=0.0,
        usage=usage,
        estimated=True,
    )
    return Outcome("cancelled", model=request.model, usage=usage, estimated=True, attempts=(call,))
