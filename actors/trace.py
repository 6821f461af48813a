"""What is kept of how a turn went (`GET /turns/{id}/trace`)."""

import time
from typing import Any

from actors.choice import Choice
from actors.turn import LiveTurn
from domain.analysis import analysis_json
from domain.generation import Outcome


def trace_of(live: LiveTurn, choice: Choice | None, outcome: Outcome, marks: dict[str, float]) -> dict[str, Any]:
    """`marks`: `generation`, the moment at which the model was asked, and `classify_ms`, `recall_ms`, `products_ms`."""
    selection = choice.selection if choice else None
    context = {**choice.prompt.account, "shared_prefix_tokens": choice.shared} if choice else None
    return {
        "turn_id": live.id,
        "intent": live.intent and live.intent.model_dump(),
        "understanding": live.understood and analysis_json(live.understood),
        "candidates": selection.candidates if selection else [],
        "chosen": outcome.model or (selection.route.id if selection else None),
        "reason": selection.reason if selection else None,
        "situation": choice.situation if choice else None,
        "attempts": [
            {name: _plain(getattr(attempt, name)) for name in attempt.__dataclass_fields__}
            for attempt in outcome.attempts
        ],
        "context": context,
        "sources": [],
        "timings_ms": _timings(live, outcome, marks),
    }


def _timings(live: LiveTurn, outcome: Outcome, marks: dict[str, float]) -> dict[str, float]:
    timings: dict[str, float | None] = {
        "total": (time.monotonic() - live.began) * 1000,
        "classify": marks.get("classify_ms"),
        "recall": marks.get("recall_ms"),
        "products": marks.get("products_ms"),
    }
    if "generation" in marks:
        first = next((attempt.first_token_ms for attempt in outcome.attempts if attempt.status == "ok"), None)
        asked = marks.get("first_generation", marks["generation"])
        before = timings["before_generation"] = (asked - live.began) * 1000
        timings["first_token"] = None if first is None else before + first
    return {name: round(ms, 2) for name, ms in timings.items() if ms is not None}


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
