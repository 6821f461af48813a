"""Answers of the routes of intents, for the API's description, and how they are written."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from domain.analysis import analysis_json, parameters
from domain.intents import DefinedIntent, Effort, Training
from domain.message import Intent
from domain.ports import HeadInUse, Understanding
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.shapes import Json, as_stored, rfc3339
from storage.intent_heads import HeadVersion


class RankedIntent(BaseModel):
    name: str
    confidence: float


class FoundEntity(BaseModel):
    slot: str
    value: Any
    text: str
    start: int
    end: int


class AskedBack(BaseModel):
    """What to ask where the message may mean several things."""

    question: str
    intents: list[str]


class Classified(BaseModel):
    """`intent`: the most probable one, also of a text that is `out_of_scope`. `version`: of the head, 0 for the shared
    set."""

    intent: Intent
    ranked: list[RankedIntent]
    out_of_scope: bool
    out_of_scope_score: float
    entities: list[FoundEntity]
    clarification: AskedBack | None
    version: int


class ClassifiedTexts(BaseModel):
    """In the order of `texts`, all by one version."""

    data: list[Classified]


class MessageAnalysis(BaseModel):
    """`stored`: as it was found when the message came; else as it is found now."""

    object: Literal["message.analysis"] = "message.analysis"
    message_id: str
    stored: bool
    intent: Intent
    ranked: list[RankedIntent]
    out_of_scope: bool
    out_of_scope_score: float
    entities: list[FoundEntity]
    clarification: AskedBack | None
    complexity: float | None
    version: int


class Head(BaseModel):
    """What names intents now. `active`: the version that should; `problem`: why another one does."""

    version: int
    active: int
    embedder: str
    intents: list[str]
    problem: str | None


class IntentList(ListOf):
    data: list[DefinedIntent]
    head: Head | None


class DeletedIntent(BaseModel):
    id: str
    object: Literal["intent"] = "intent"
    deleted: Literal[True] = True


class IntentHead(BaseModel):
    version: int
    object: Literal["intent_head"] = "intent_head"
    active: bool
    embedder: str | None
    effort: Effort | None
    training_id: str | None
    metrics: dict[str, Any]
    activated_at: datetime | None
    created_at: datetime | None


class IntentHeadList(ListOf):
    data: list[IntentHead]


class CommonIntent(BaseModel):
    name: str
    count: int
    share: float
    mean_confidence: float


class CommonIntents(ListOf):
    data: list[CommonIntent]
    total: int


class IntentFigures(BaseModel):
    intent: str
    examples: int
    precision: float
    recall: float
    f1: float


class Confusion(BaseModel):
    intent: str
    predicted: str
    count: int


class Evaluation(BaseModel):
    accuracy: float
    macro_f1: float
    expected_calibration_error: float
    per_intent: list[IntentFigures]
    confusions: list[Confusion]
    examples: int
    version: int


def defined_json(one: DefinedIntent) -> Json:
    return {
        **one.model_dump(exclude={"created_at", "updated_at"}),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def training_json(one: Training) -> Json:
    return {
        "id": one.id,
        "object": "intent_training",
        "status": one.status,
        "progress": one.progress,
        "phase": one.phase,
        "version": one.version,
        "metrics": as_stored(one.metrics),
        "error": one.error,
        "created_at": rfc3339(one.created_at),
        "started_at": _at(one.started_at),
        "completed_at": _at(one.completed_at),
    }


def version_json(one: HeadVersion) -> Json:
    return {
        "version": one.version,
        "object": "intent_head",
        "active": one.active,
        "embedder": one.embedder,
        "effort": one.effort,
        "training_id": one.training_id,
        "metrics": as_stored(one.metrics),
        "activated_at": _at(one.activated_at),
        "created_at": rfc3339(one.created_at),
    }


def shared_json(active: bool) -> Json:
    """The shared set, as version 0."""
    nothing = dict.fromkeys(("embedder", "effort", "training_id", "activated_at", "created_at"))
    return {"version": 0, "object": "intent_head", "active": active, "metrics": {}, **nothing}


def head_json(one: HeadInUse) -> Json:
    return {
        "version": one.version,
        "active": one.active,
        "embedder": one.embedder,
        "intents": list(one.intents),
        "problem": one.problem,
    }


def classified_json(found: Understanding) -> Json:
    told = analysis_json(found)
    del told["complexity"]
    best = found.ranked[0]
    named = {"name": best.name, "confidence": best.confidence, "parameters": parameters(found.entities)}
    return {**told, "intent": named}


def _at(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
