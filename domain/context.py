"""What the model is told: a prompt within a budget of tokens, whose beginning stays the same from turn to turn.

History is dropped from the front in large blocks (half of the budget at once), never one message a turn, so that
providers and vLLM can reuse the cached prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.message import Role

MESSAGE_OVERHEAD = 4  # tokens a chat format spends on each message


def estimate_tokens(text: str) -> int:
    """A cheap estimate: four bytes of UTF-8 a token, as OpenAI's guidance for English text says."""
    return (len(text.encode()) + 3) // 4


@dataclass(frozen=True, slots=True)
class Remembered:
    """One message of the hot context. `order` is the turn's place: history is told in order of turns."""

    order: int
    seq: int
    role: Role
    content: str
    tokens: int

    @classmethod
    def of(cls, order: int, seq: int, role: Role, content: str) -> "Remembered":
        return cls(order, seq, role, content, estimate_tokens(content) + MESSAGE_OVERHEAD)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages in OpenAI's shape, the first order that is still told, and the account for the trace."""

    messages: list[dict[str, str]]
    window_from: int
    tokens: int
    account: dict[str, Any]


def build_prompt(
    system_prompt: str | None,
    history: Sequence[Remembered],
    order: int,
    window_from: int,
    budget: int,
    max_messages: int = 100,
) -> Prompt:
    """The prompt of turn `order`: system prompt, history from `window_from` on, the turn's own message last.

    `history` must hold the messages of turn `order` and of those before it; those of later turns are left out.
    `budget` is in tokens. Over it, or over `max_messages`, history is cut to half of either.
    """
    told = sorted(
        (m for m in history if window_from <= m.order <= order), key=lambda m: (m.order, m.role != "user", m.seq)
    )
    system_tokens = estimate_tokens(system_prompt) + MESSAGE_OVERHEAD if system_prompt else 0
    total = system_tokens + sum(m.tokens for m in told)
    elements: list[dict[str, Any]] = []
    if system_prompt:
        elements.append({"kind": "system", "tokens": system_tokens, "included": True, "reason": "always"})
    if total > budget or len(told) > max_messages:
        kept, goal = len(told), budget // 2
        size = system_tokens
        fewest = len(told) - max_messages // 2
        while kept and ((size + told[kept - 1].tokens <= goal and kept > fewest) or told[kept - 1].order == order):
            kept -= 1
            size += told[kept].tokens
        while kept < len(told) and told[kept].role != "user" and told[kept].order < order:
            kept += 1  # begin with a question, not with its answer
        dropped = told[:kept]
        told = told[kept:]
        elements.append(
            {
                "kind": "history",
                "tokens": sum(m.tokens for m in dropped),
                "included": False,
                "reason": "beyond the window: dropped as one block",
            }
        )
        window_from = told[0].order if told else order
        total = system_tokens + sum(m.tokens for m in told)
    past = sum(m.tokens for m in told if m.order < order)
    if past:
        elements.append({"kind": "history", "tokens": past, "included": True, "reason": "recent turns"})
    elements.append(
        {
            "kind": "message",
            "tokens": sum(m.tokens for m in told if m.order == order),
            "included": True,
            "reason": "now",
        }
    )
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages += [{"role": m.role, "content": m.content} for m in told]
    return Prompt(messages, window_from, total, {"budget_tokens": budget, "elements": elements})
