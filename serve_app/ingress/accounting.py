"""Money for completions that nobody keeps: held before the model is asked, settled when its calls have ended.

Settling is off the path of the answer, but never given up quietly: it is repeated while the database is away, and what
could not be entered at last is logged whole, so that it can be entered by hand.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from domain.errors import BrainError, Overloaded, Unavailable
from domain.generation import GenerationRequest, Outcome
from domain.ledger import Charge, bounded, charges_of, most_tokens, reservation
from domain.message import Usage
from domain.model import Catalog, Route
from domain.ports import Ledger, TenantModels

log = logging.getLogger("brain.ledger")

HELD = 900.0  # seconds after which what a dead process held is given back
AT_ONCE = 4  # settlements of one replica: they wait for each other, not requests for them
MOST_OPEN = 8192  # completions of one replica that run or wait to be entered; while there are more, none is begun
PAUSES = (0.1, 0.5, 2.0, 5.0, 10.0, 20.0, 30.0)  # seconds before each further try


class Accounts:
    """The accounts of one replica's completions."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._places = asyncio.Semaphore(AT_ONCE)
        self._open: set[asyncio.Task[None]] = set()

    async def hold(self, models: TenantModels, asked: GenerationRequest, routes: Sequence[Route]) -> GenerationRequest:
        """Hold what the completion may cost at the most, if its tenant has a budget. Raises `BudgetExceeded`, and
        `Overloaded` where too many are not entered yet, as while the database is away.

        Gives the request to make: under a hard limit the answer is not longer than what is held for.
        """
        if len(self._open) >= MOST_OPEN:
            raise Overloaded("too many completions wait to be entered into the ledger")
        hard = True
        try:
            budget = (await models.settings(asked.tenant)).budget
            if budget is None:
                return asked
            hard = budget.hard_usd is not None
        except Unavailable:
            pass  # the ledger reads the settings itself
        prompt = most_tokens(asked.messages, asked.parameters.get("tools"))
        if hard:
            asked = replace(asked, parameters=bounded(routes, asked.parameters))
        await self._ledger.reserve(asked.tenant, asked.turn_id, reservation(routes, prompt, asked.parameters), HELD)
        return asked

    def settle_after(
        self,
        generation: "asyncio.Future[Outcome]",
        catalog: Catalog,
        asked: GenerationRequest,
        caller: str,
        prompt_tokens: int = 0,
        heard: Callable[[], int] = lambda: 0,
    ) -> None:
        """Settle once `generation` has ended. Should its process die, what was heard of it is charged for.

        `prompt_tokens` is an estimate, `heard` gives the characters of the answer so far.
        """
        calls = _calls_of(generation, catalog, asked, prompt_tokens, heard)
        task = asyncio.create_task(self._settle(calls, asked, caller))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def close(self, seconds: float) -> None:
        """Wait until all is settled; what is left then is logged."""
        if self._open:
            _, late = await asyncio.wait(set(self._open), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _settle(self, ended: Awaitable[tuple[Charge, ...]], asked: GenerationRequest, caller: str) -> None:
        calls: tuple[Charge, ...] = ()
        try:
            calls = await ended
            await self._enter(asked, calls, caller)
        except (Exception, asyncio.CancelledError) as error:
            log.error(
                "not entered into the ledger: %s",
                type(error).__name__,
                extra={"tenant": asked.tenant, "turn_id": asked.turn_id, "calls": [str(call) for call in calls]},
            )

    async def _enter(self, asked: GenerationRequest, calls: tuple[Charge, ...], caller: str) -> None:
        for pause in (*PAUSES, None):
            try:
                async with self._places:
                    await self._ledger.settle(asked.tenant, asked.turn_id, calls, caller=caller)
                return
            except Unavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)


async def _calls_of(
    generation: "asyncio.Future[Outcome]",
    catalog: Catalog,
    asked: GenerationRequest,
    prompt: int,
    heard: Callable[[], int],
) -> tuple[Charge, ...]:
    try:
        return charges_of(catalog, await asyncio.shield(generation))
    except Overloaded:
        return ()  # no model was asked
    except asyncio.CancelledError:
        if not generation.cancelled():
            raise
    except BrainError:
        pass
    return _heard_of(catalog, asked, prompt, heard())


def _heard_of(catalog: Catalog, asked: GenerationRequest, prompt: int, heard: int) -> tuple[Charge, ...]:
    """What is known of a call whose process died; what else it asked is not. Nothing where nothing was heard."""
    completion = (heard + 3) // 4
    if not completion:
        return ()
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    route = catalog.find(asked.model)
    cost, provider = (route.model.cost_usd(usage), route.provider.name) if route else (None, None)
    return (Charge(1, asked.model, provider, "first", usage, cost, estimated=True),)
