"""Intents: what a tenant defines, what texts mean by them, and which messages meant what."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from deployments.slot_finding import extractor
from domain.errors import BrainError, InvalidSlot
from domain.ids import new_id
from domain.intents import DefinedIntent
from serve_app.ingress.acting import ManagesIntents, ReadsIntents
from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.intent_answers import (
    Classified,
    ClassifiedTexts,
    CommonIntents,
    DeletedIntent,
    IntentList,
    classified_json,
    defined_json,
    head_json,
)
from serve_app.ingress.intent_bodies import IntentClassify, IntentPut
from serve_app.ingress.params import Limit, NewestFirst, known
from serve_app.ingress.parts import intents_of, parts_of
from serve_app.ingress.periods import End, Moment, period
from serve_app.ingress.sending import REPLAYED
from storage.intents import NewIntent

router = APIRouter(prefix="/api/v1/intents", tags=["intents"])


@router.post(
    "/classify",
    response_model=None,
    responses={200: {"model": Classified | ClassifiedTexts}},
    openapi_extra=takes(IntentClassify),
)
async def classify(request: Request, who: ReadsIntents) -> Response:
    """What a text asks for, or up to 256 of them: the tenant's own intents, else the shared set."""
    body = checked(IntentClassify, await request.body(), strict=True)
    classifier = parts_of(request).classifier
    if body.texts is not None:
        found = await classifier.classify_many(body.texts, who.tenant)
        return Answer({"data": [classified_json(one) for one in found]})
    return Answer(classified_json(await classifier.classify(body.text or "", who.tenant)))


@router.get("/common", response_model=None, responses={200: {"model": CommonIntents}})
async def common_intents(
    request: Request, who: ReadsIntents, since: Moment = None, until: End = None, limit: Limit = 20
) -> Response:
    """What users asked for most, in a period: seven days unless `from` and `to` say otherwise."""
    begin, end = period(since, until)
    data, total = await parts_of(request).reader.common_intents(who.tenant, begin, end, limit)
    ends = {"first_id": None, "last_id": None, "has_more": False}
    return Answer({"object": "list", "data": data, "total": total, **ends})


@router.get("", response_model=None, responses={200: {"model": IntentList}})
async def list_intents(request: Request, who: ReadsIntents, page: NewestFirst) -> Response:
    """The tenant's intents, newest first; `head` says which of them messages are told apart by at the moment."""
    if page.after is not None:
        known(page.after, "int", "intent")
    found = await intents_of(request).defined.page(who.tenant, page)
    head: dict[str, Any] | None = None
    try:
        head = head_json(await parts_of(request).classifier.head(who.tenant))
    except BrainError:  # what is defined can be read while nothing classifies
        head = None
    return Answer({**list_json([defined_json(one) for one in found.data], found.has_more), "head": head})


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": DefinedIntent}},
    openapi_extra=takes(IntentPut, creates=True),
)
async def create_intent(request: Request, who: ManagesIntents) -> Response:
    """Define an intent. It is told apart from others once a training has learned it."""
    body, key = await _intent(request), idempotency_key(request)
    new = _new(new_id("int"), body, key, body_hash("intents", body))
    made, replayed = await intents_of(request).defined.create(who, new)
    return Answer(defined_json(made), 201, REPLAYED if replayed else None)


@router.get("/{intent_id}", response_model=None, responses={200: {"model": DefinedIntent}})
async def get_intent(request: Request, who: ReadsIntents, intent_id: str) -> Response:
    known(intent_id, "int", "intent")
    return Answer(defined_json(await intents_of(request).defined.one(who.tenant, intent_id)))


@router.put(
    "/{intent_id}",
    response_model=None,
    responses={200: {"model": DefinedIntent}},
    openapi_extra=takes(IntentPut),
)
async def put_intent(request: Request, who: ManagesIntents, intent_id: str) -> Response:
    """Replace what is said of an intent."""
    known(intent_id, "int", "intent")
    new = _new(intent_id, await _intent(request))
    return Answer(defined_json(await intents_of(request).defined.put(who.tenant, intent_id, new)))


@router.delete("/{intent_id}", response_model=None, responses={200: {"model": DeletedIntent}})
async def delete_intent(request: Request, who: ManagesIntents, intent_id: str) -> Response:
    """Remove an intent; the head knows it until the next training."""
    known(intent_id, "int", "intent")
    await intents_of(request).defined.delete(who.tenant, intent_id)
    return Answer({"id": intent_id, "object": "intent", "deleted": True})


async def _intent(request: Request) -> IntentPut:
    body = checked(IntentPut, await request.body(), strict=True)
    for number, text in enumerate(body.examples):
        if not text.strip():
            raise Problem(422, f"examples.{number}: has no text", f"examples.{number}")
    try:
        await asyncio.to_thread(extractor, body.slots)
    except InvalidSlot as error:
        raise Problem(422, f"slots: {error}", "slots", error.code) from None
    return body


def _new(intent_id: str, body: IntentPut, key: str | None = None, hashed: bytes = b"") -> NewIntent:
    return NewIntent(
        id=intent_id,
        name=body.name,
        description=body.description,
        examples=body.examples,
        slots=[slot.model_dump(mode="json", exclude_defaults=True) for slot in body.slots],
        needs_products=body.needs_products,
        key=key,
        body_hash=hashed,
    )
