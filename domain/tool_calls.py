"""The calls of tools that a turn makes: their states, and what an owner does with calls that it finds.

A call is written down before it is made, and its result after. So a crash repeats none that must not be made twice:
what was begun and may not be repeated has an outcome that nobody knows, and the model is told so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from domain.context.fence import NOTE, fenced
from domain.errors import BrainError

UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: it may have been carried out, or not. It was not repeated. Do not call it"
    " again unless the user asks for it; say that the outcome is not known."
)
TOLD = 2_000  # characters of arguments and of a result in the trace


class CallState(StrEnum):
    PLANNED = "planned"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self not in (CallState.PLANNED, CallState.STARTED)


class CallMove(StrEnum):
    START = "start"
    REPEAT = "repeat"
    FINISH = "finish"
    FAIL = "fail"
    LOSE = "lose"


MOVES: dict[tuple[CallState, CallMove], CallState] = {
    (CallState.PLANNED, CallMove.START): CallState.STARTED,
    (CallState.STARTED, CallMove.REPEAT): CallState.STARTED,  # by another owner, of what may be repeated
    (CallState.STARTED, CallMove.FINISH): CallState.DONE,
    (CallState.STARTED, CallMove.FAIL): CallState.FAILED,
    (CallState.STARTED, CallMove.LOSE): CallState.UNKNOWN,
}


class IllegalCallMove(BrainError):
    """A call of a tool cannot make this move from the state it is in."""


def advance(state: CallState, move: CallMove) -> CallState:
    """The state after `move`; raises `IllegalCallMove` where the table has none. The SQL repeats this guard."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalCallMove(f"a {state} call cannot {move}") from None


def taken_up(state: CallState, repeatable: bool) -> CallMove | None:
    """What an owner does with a call before it makes it: None where its result stands."""
    if state is CallState.PLANNED:
        return CallMove.START
    if state is CallState.STARTED:
        return CallMove.REPEAT if repeatable else CallMove.LOSE
    return None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. `call_id`, `name`, `arguments`: as the model wrote them. `server`, `tool`: what is called; empty where
    there is no such tool. `round` and `place` name it within its turn, whatever attempt makes it."""

    round: int
    place: int
    call_id: str
    name: str
    server: str
    server_name: str
    tool: str
    arguments: str
    repeatable: bool
    state: CallState = CallState.PLANNED
    result: str | None = None
    ms: float | None = None

    def key(self, turn_id: str) -> str:
        """The same however often the call is made."""
        return f"{turn_id}/{self.round}.{self.place}"

    @property
    def shape(self) -> dict[str, Any]:
        """As OpenAI's `tool_calls` have it. A provider refuses arguments that are no JSON object."""
        arguments = self.arguments if parsed(self.arguments) is not None else "{}"
        return {"id": self.call_id, "type": "function", "function": {"name": self.name, "arguments": arguments}}

    @property
    def answer(self) -> dict[str, Any]:
        """The message that tells the model its result: data, whatever stands in it."""
        text = UNKNOWN_OUTCOME if self.state is CallState.UNKNOWN else NOTE + fenced("tool", self._told())
        return {"role": "tool", "tool_call_id": self.call_id, "content": text}

    def _told(self) -> str:
        if self.state is CallState.FAILED:
            return f"The call failed: {self.result or 'nobody said why'}"
        return self.result or "(nothing)"

    def told(self) -> dict[str, Any]:
        """For the trace."""
        failed = self.state in (CallState.FAILED, CallState.UNKNOWN)
        return {
            "round": self.round,
            "server": self.server_name,
            "tool": self.tool or self.name,
            "arguments": self.arguments[:TOLD],
            "status": self.state.value,
            "ms": self.ms,
            "result": None if self.result is None or failed else self.result[:TOLD],
            "error": (self.result or "its outcome is unknown")[:TOLD] if failed else None,
        }


@dataclass(frozen=True, slots=True)
class Round:
    """What a generation said before it called tools, and the calls, in order. `text` is empty where a new attempt has
    taken it back."""

    calls: tuple[ToolCall, ...]
    text: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """The round as the next generation is told it."""
        said = {"role": "assistant", "content": self.text or None, "tool_calls": [call.shape for call in self.calls]}
        return [said, *(call.answer for call in self.calls)]


def rounds_of(calls: Sequence[ToolCall], texts: Sequence[str] = ()) -> list[Round]:
    """The rounds that these calls were made in, with what was said in them, as far as that is known."""
    found: dict[int, list[ToolCall]] = {}
    for call in sorted(calls, key=lambda one: (one.round, one.place)):
        found.setdefault(call.round, []).append(call)
    said = dict(enumerate(texts))
    return [Round(tuple(made), said.get(number, "")) for number, made in found.items()]


def parsed(arguments: str) -> dict[str, Any] | None:
    """The arguments of a call; None where they are no JSON object."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
