"""When a message may mean several things: a question that names them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.carried import carried
from domain.understanding import Ranked

OTHER = "other"
SURE = 0.5
"""An intent at least this probable is taken as meant.

Of the 140 messages of intents/validation.yaml the shared set is less sure of 10 in scope, among them 4 of its 13
mistakes; the question then names the right intent for 8 of the 10 (7 with NEAR at 0.5). At 0.6 it would ask about 19,
of which 11 were understood.
"""
NEAR = 0.3
"""Asked about beside the best one: intents at least this share as probable."""
MOST_NAMED = 3
OPENING = "I am not sure that I understand you."


@carried
@dataclass(frozen=True, slots=True)
class Clarification:
    """What to ask, and the intents that the question names, the most probable one first."""

    question: str
    intents: tuple[str, ...]


def clarification(ranked: Sequence[Ranked], titles: Mapping[str, str] | None = None) -> Clarification | None:
    """The question for a message that none of `ranked` (the best one first) is sure of; None where one is.

    `titles`: how intents are called in the question; else by their names.
    """
    named = [one for one in ranked if one.name != OTHER]
    if not named or named[0].confidence >= SURE:
        return None
    likely = [one.name for one in named if one.confidence >= NEAR * named[0].confidence][:MOST_NAMED]
    told = [f"“{(titles or {}).get(name) or title(name)}”" for name in likely]
    choice = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} or {told[-1]}"
    return Clarification(f"{OPENING} Is this about {choice}?", tuple(likely))


def clarification_json(asked: Clarification) -> dict[str, Any]:
    return {"question": asked.question, "intents": list(asked.intents)}


def title(name: str) -> str:
    """`order_status` as people write it."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or name
