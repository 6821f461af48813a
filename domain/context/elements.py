"""What a prompt is made of: the order, the priority and the budget of each element.

The order is that of the prompt: what changes each turn goes last, so that the beginning stays the same.
"""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["system", "summary", "facts", "history", "similar", "products", "message"]


@dataclass(frozen=True, slots=True)
class Element:
    """`priority`: lower numbers stay longer. `share`: of the prompt's budget, at the most."""

    kind: Kind
    priority: int
    share: float


SYSTEM = Element("system", 0, 1.0)
SUMMARY = Element("summary", 2, 0.4)
FACTS = Element("facts", 1, 0.1)
HISTORY = Element("history", 4, 1.0)
SIMILAR = Element("similar", 5, 0.1)
PRODUCTS = Element("products", 3, 0.15)
MESSAGE = Element("message", 0, 1.0)
ORDER = (SYSTEM, SUMMARY, FACTS, HISTORY, SIMILAR, PRODUCTS, MESSAGE)
BY_KIND = {element.kind: element for element in ORDER}


@dataclass(slots=True)
class Account:
    """What became of each element, as the trace tells it."""

    entries: list[dict[str, Any]]

    def add(self, kind: Kind, tokens: int, included: bool, reason: str) -> None:
        self.entries.append({"kind": kind, "tokens": tokens, "included": included, "reason": reason})
