"""Training, evaluation and versions of the heads that tell a tenant's intents apart."""

import asyncio
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from deployments.understanding import check_examples
from domain.errors import InvalidExamples, NotFound
from domain.ids import new_id
from domain.intents import MOST_EXAMPLES, DefinedIntent, Training, TrainingRequest
from domain.understanding import Example
from serve_app.ingress.acting import ManagesIntents, ReadsIntents
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.detached import apart, detach
from serve_app.ingress.documents import takes
from serve_app.ingress.intent_answers import (
    Evaluation,
    IntentHead,
    IntentHeadList,
    shared_json,
    training_json,
    version_json,
)
from serve_app.ingress.intent_bodies import IntentEvaluate, IntentRollback, IntentTrain
from serve_app.ingress.params import known
from serve_app.ingress.parts import Intents, intents_of, parts_of
from serve_app.ingress.sending import REPLAYED
from storage.intent_trainings import NewTraining

router = APIRouter(prefix="/api/v1/intents", tags=["intents"])
WAIT, EVERY = 600.0, 0.2  # seconds that `wait` lasts at the most, and between looks


@router.post(
    "/train",
    status_code=202,
    response_model=None,
    responses={202: {"model": Training}, 200: {"model": Training, "description": "With `wait`, when it has ended"}},
    openapi_extra=takes(IntentTrain, required=False, creates=True),
)
async def train_intents(request: Request, who: ManagesIntents) -> Response:
    """Train a head in the background, from these examples or those of the stored intents. It becomes active by itself,
    a first one within seconds; `version` then names it. The head before it answers until then."""
    body = checked(IntentTrain, await request.body() or b"{}", strict=True)
    intents, key = intents_of(request), idempotency_key(request)
    asked = NewTraining(
        new_id("train"),
        await _request(intents, who.tenant, body),
        key,
        body_hash("intents/train", body.model_copy(update={"wait": False})),
    )
    training, replayed = await intents.trainings.submit(who, asked)
    detach(apart(_wake(intents)))
    if body.wait:
        training = await _ended(intents, who.tenant, training)
    return Answer(training_json(training), 200 if body.wait else 202, REPLAYED if replayed else None)


@router.get("/training/{training_id}", response_model=None, responses={200: {"model": Training}})
async def get_training(request: Request, who: ReadsIntents, training_id: str) -> Response:
    """How far a training is, and what came of it."""
    known(training_id, "train", "training")
    return Answer(training_json(await intents_of(request).trainings.one(who.tenant, training_id)))


@router.post(
    "/evaluate", response_model=None, responses={200: {"model": Evaluation}}, openapi_extra=takes(IntentEvaluate)
)
async def evaluate_intents(request: Request, who: ReadsIntents) -> Response:
    """How well the head that is in use knows these examples."""
    body = checked(IntentEvaluate, await request.body(), strict=True)
    examples = [one.example() for one in body.examples]
    for number, one in enumerate(examples):
        for name, text in (("text", one.text), ("intent", one.intent)):
            if not text.strip():
                raise InvalidExamples(f"example {number} has no {name}", f"examples.{number}.{name}")
    return Answer(await parts_of(request).classifier.evaluate(examples, who.tenant))


@router.get("/versions", response_model=None, responses={200: {"model": IntentHeadList}})
async def list_versions(request: Request, who: ReadsIntents) -> Response:
    """The heads that are kept, newest first; version 0 is the shared set."""
    found = await intents_of(request).heads.versions(who.tenant)
    data = [*map(version_json, found), shared_json(not any(one.active for one in found))]
    return Answer({"object": "list", "data": data, "first_id": None, "last_id": None, "has_more": False})


@router.post(
    "/rollback", response_model=None, responses={200: {"model": IntentHead}}, openapi_extra=takes(IntentRollback)
)
async def roll_back(request: Request, who: ManagesIntents) -> Response:
    """Make another version active, an older or a newer one; within two seconds every replica goes by it."""
    body, heads = checked(IntentRollback, await request.body(), strict=True), intents_of(request).heads
    if not await heads.activate(who.tenant, body.version):
        raise NotFound(f"there is no version {body.version}")
    active = next((one for one in await heads.versions(who.tenant) if one.active), None)
    return Answer(version_json(active) if active else shared_json(True))


async def _request(intents: Intents, tenant: str, body: IntentTrain) -> TrainingRequest:
    """What is to be learned. Raises `InvalidExamples` naming what cannot be."""
    stored = await intents.defined.all(tenant)
    if body.examples is not None:
        examples = [one.example() for one in body.examples]
        check_examples(examples)
    else:
        examples = [Example(text, one.name) for one in stored for text in one.examples]
        try:
            check_examples(examples)
        except InvalidExamples as error:  # the place of an example in no list that the caller knows
            raise InvalidExamples(f"of the stored intents, {error}", None) from None
    validation = [one.example() for one in body.validation]
    named = {one.intent for one in examples}
    for number, one in enumerate(validation):
        if not one.text.strip() or one.intent not in named:
            what = f"is of {one.intent!r}, of which there is no example" if one.text.strip() else "has no text"
            raise InvalidExamples(f"validation example {number} {what}", f"validation.{number}")
    if len(examples) > MOST_EXAMPLES:
        raise InvalidExamples(f"at most {MOST_EXAMPLES} examples")
    definitions = {one.name: _definition(one) for one in stored if one.name in named}
    return TrainingRequest(tuple(examples), tuple(validation), definitions, body.effort)


def _definition(one: DefinedIntent) -> dict[str, object]:
    return {
        "description": one.description,
        "slots": [slot.model_dump(mode="json", exclude_defaults=True) for slot in one.slots],
        "needs_products": one.needs_products,
    }


async def _ended(intents: Intents, tenant: str, training: Training) -> Training:
    """The training when it has ended, or as far as it is after `WAIT` seconds."""
    deadline = time.monotonic() + WAIT
    while not training.ended and time.monotonic() < deadline:
        await asyncio.sleep(EVERY)
        training = await intents.trainings.one(tenant, training.id)
    return training


async def _wake(intents: Intents) -> None:
    await intents.wake()
