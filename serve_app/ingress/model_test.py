"""`POST /models/{id}/test`: one real call of a model, of which nothing is kept but what it cost."""

import asyncio
from decimal import Decimal
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from domain.context import estimate_tokens
from domain.errors import GenerationTimeout, Unavailable
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.ledger import charges_of, total
from domain.model import Route
from domain.turn import Parameters
from serve_app.ingress.allowed import allowed_route
from serve_app.ingress.answer_models import ModelTestAnswer
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import TestsModels
from serve_app.ingress.bodies import Native, checked
from serve_app.ingress.detached import apart, detach
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import unknown_model
from serve_app.ingress.limiting import hand_on
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.shapes import error_json, usage_json

router = APIRouter(prefix="/api/v1/models", tags=["models"])
LIMIT = 60.0  # seconds
USUAL, MOST = 64, 1024  # tokens of an answer


class ModelTest(Native):
    prompt: str = Field("Say hello in one short sentence.", min_length=1, max_length=32_000)
    parameters: Parameters = Parameters()


@router.post(
    "/{model_id:path}/test",
    response_model=None,
    responses={200: {"model": ModelTestAnswer}},
    openapi_extra=takes(ModelTest, required=False),
)
async def test_model(request: Request, who: TestsModels, model_id: str) -> Response:
    """Call the model once and tell how it went, also when it failed. The answer is short; it counts as usage."""
    parts = parts_of(request)
    raw = await request.body()
    body = checked(ModelTest, raw, strict=True) if raw.strip() else ModelTest()
    route = await allowed_route(parts, who, model_id)
    if route is None:
        raise unknown_model(model_id)
    wanted = body.parameters.model_dump(exclude_none=True)
    asked = GenerationRequest(
        tenant=who.tenant,
        turn_id=new_id("turn"),
        attempt=1,
        model=model_id,
        messages=[{"role": "user", "content": body.prompt}],
        parameters={**wanted, "max_tokens": min(wanted.get("max_tokens", USUAL), MOST)},
        live=False,
        journal=False,
        kept=False,
        weight=(await parts.models.settings(who.tenant)).weight,
    )
    asked = await parts.accounts.hold(parts.models, asked, [route])
    began = perf_counter()
    generation = apart(parts.llm.generate(asked))
    parts.accounts.settle_after(generation, parts.catalog, asked, who.key_id, estimate_tokens(body.prompt))
    hand_on(request, generation)
    outcome = await _heard(parts, asked, generation)
    cost = total(charges_of(parts.catalog, outcome))
    return Answer(_json(route, outcome, cost, (perf_counter() - began) * 1000))


async def _heard(parts: Parts, asked: GenerationRequest, generation: "asyncio.Future[Outcome]") -> Outcome:
    """What came of it; a call that takes too long is closed."""
    try:
        async with asyncio.timeout(LIMIT):
            outcome = await asyncio.shield(generation)
    except TimeoutError:
        detach(parts.llm.cancel(asked))
        late = GenerationTimeout(f"the model did not answer within {LIMIT:g} s")
        return Outcome("failed", error={"message": str(late), "type": late.type, "code": late.code})
    except asyncio.CancelledError:
        detach(parts.llm.cancel(asked))
        raise
    if outcome.ending == "elsewhere":
        raise Unavailable("the call went on in another process")
    return outcome


def _json(route: Route, outcome: Outcome, cost: Decimal | None, total_ms: float) -> dict[str, Any]:
    ok = outcome.ending == "completed"
    first = [one.first_token_ms for one in outcome.attempts if one.first_token_ms is not None]
    return {
        "object": "model.test",
        "ok": ok,
        "model": route.id,
        "provider": route.provider.name,
        "first_token_ms": round(first[-1], 2) if first else None,
        "total_ms": round(total_ms, 2),
        "text": outcome.text,
        "usage": usage_json(outcome.usage),
        "cost_usd": None if cost is None else float(cost),
        "error": None if ok else error_json(outcome.error or {"message": f"the call was {outcome.ending}"}),
    }
