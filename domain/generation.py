"""One call of a model: what is asked and what came of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from domain.carried import carried
from domain.events import Entry
from domain.message import Usage
from domain.product_facts import ProductFacts

Ending = Literal["completed", "failed", "cancelled", "elsewhere"]
Why = Literal["first", "retry", "fallback", "hedge", "continued", "reattached", "shadow", "side", "judge", "summary"]


@carried
@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Asks for one generation, named by turn and attempt: a second start of the same name joins the first.

    `n` is the last event number that the caller knows of in the attempt's journal. `live` asks for each delta at once;
    otherwise they are journalled in larger batches. `messages` have OpenAI's shape. `intent` chooses the template of
    the built-in model. `parameters` are those of `Parameters` and what OpenAI's chat API calls `tools`, `tool_choice`,
    `parallel_tool_calls` and `response_format`. `chain` are the models that may answer instead, in order, before the
    first delta. `join`: never start it, answer `elsewhere` if it does not run here; `model` and `chain` are then those
    that may have been asked. `journal`: whether it is journalled at all. `kept`: whether it is a stored turn's, whose
    stream ends with a terminal event. `prefix`: text that this attempt has said already; the answer goes on after it.
    `stable`: how many of the first messages will stand unchanged in the conversation's next prompt. `session` names
    what shares a prefix (the conversation). `weight`: the tenant's share of its provider. `side`: its place among the
    models that answer one turn side by side: its deltas are `candidate.delta` events then, and it has no end in the
    journal. `clarification`: what the built-in model asks where the message may mean several things.
    `products`: what it answers product questions from, where it may be asked. `round`: how many generations of this
    attempt have called tools before it; `earlier`: the text that they said.
    """

    tenant: str
    turn_id: str
    attempt: int
    model: str
    messages: list[dict[str, Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    intent: str | None = None
    chain: tuple[str, ...] = ()
    n: int = 0
    live: bool = True
    journal: bool = True
    join: bool = False
    kept: bool = True
    prefix: str = ""
    stable: int = 0
    session: str = ""
    weight: float = 1.0
    traceparent: str | None = None
    side: int | None = None
    clarification: str | None = None
    products: ProductFacts | None = None
    round: int = 0
    earlier: str = ""

    @property
    def name(self) -> str:
        name = f"{self.turn_id}/{self.attempt}"
        if self.round:
            name += f".{self.round}"
        return name if self.side is None else f"{name}~{self.side}"


@carried
@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a provider, as the trace tells it. Times: unix seconds and milliseconds.

    `why` it was made; `waited_ms`: for a place at the provider. `usage`: what it is charged for, None where nothing is;
    `estimated` where the provider never said. `reply`: whether its text is part of the reply.
    """

    model: str
    provider: str
    status: Literal["ok", "error"]
    error: str | None
    started_at: float
    first_token_ms: float | None
    total_ms: float
    why: Why = "first"
    waited_ms: float = 0.0
    usage: Usage | None = None
    estimated: bool = False
    reply: bool = False


@carried
@dataclass(frozen=True, slots=True)
class Outcome:
    """How a generation ended. `text` is whole, whatever became of the journal.

    `deltas` are (n, length in characters) of the journalled deltas, in order; they end early if the journal was lost.
    `unanswered`: the layout's entry of an event that the journal may hold behind all that this process wrote.
    `elsewhere`: another process holds this generation; follow its journal. `error` has the shape of an API error.
    """

    ending: Ending
    text: str = ""
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    estimated: bool = False
    error: dict[str, Any] | None = None
    status: int = 502
    deltas: tuple[tuple[int, int], ...] = ()
    models: tuple[tuple[int, str, str], ...] = ()  # (n, model, reason) of `turn.model` events after the first
    attempts: tuple[Attempt, ...] = ()
    tool_calls: tuple[dict[str, Any], ...] = ()  # in OpenAI's shape
    unanswered: Entry | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether the model wants tools to be called before it goes on."""
        return self.ending == "completed" and bool(self.tool_calls)
