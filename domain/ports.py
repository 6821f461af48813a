"""What the domain needs of the world. The docstrings are the contracts; storage, deployments and adapters fulfil them.

Every method of a store may raise `Unavailable` (nothing happened) and, where it writes, `CommitUnknown`. The ports
of streams, models and memory stand in files of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from domain.carried import carried
from domain.clarifying import Clarification
from domain.commands import Accepted, Append, Appended, Change, Ended, Send, UnfinishedTurn
from domain.context import Remembered, Summary
from domain.conversation import Conversation, ConversationKey
from domain.embedding import EmbedderInfo, Embedding
from domain.events import Layout
from domain.ledger import Charge, Version
from domain.limits import Limits, Rule, Taken
from domain.memory import Memory as Memory
from domain.message import Intent, Message, MessageStatus, Usage
from domain.model_ports import Health as Health
from domain.model_ports import LanguageModel as LanguageModel
from domain.model_ports import TenantModels as TenantModels
from domain.model_ports import TokenCounters as TokenCounters
from domain.streams import Follower as Follower
from domain.streams import Journal as Journal
from domain.streams import Progress as Progress
from domain.tenant_settings import TenantSettings
from domain.tool_calls import ToolCall
from domain.tools import Tools as Tools
from domain.turn import Turn
from domain.understanding import Entity, Example


@dataclass(frozen=True, slots=True)
class Ownership:
    """A host's claim on a conversation: every write is conditional on both."""

    epoch: int
    activation: str


@dataclass(frozen=True, slots=True)
class Activation:
    """What a host takes over with a conversation: its state, its recent messages, its unfinished turns in order.

    `model`: the one of its last reply. `summary`: of the turns before `recent`, and of some of these.
    """

    ownership: Ownership
    conversation: Conversation
    window_from: int
    recent: list[Remembered]
    unfinished: list[UnfinishedTurn]
    model: str | None = None
    summary: Summary = field(default_factory=Summary)


@dataclass(frozen=True, slots=True)
class AcceptedTurn:
    """`turn` is new; or, when `replayed`, the one that the key named before."""

    turn: Turn
    user_message: Message
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """How a turn ends: the reply to store (none if `text` is empty), the layout of its stream, and the trace.

    `calls`: what this attempt is charged for; without any, `usage` counts as its one call. `versions`: other answers to
    keep beside a stored reply.
    """

    status: MessageStatus
    message_id: str
    text: str
    model: str | None
    intent: Intent | None
    usage: Usage | None
    cost_usd: float | None
    error: dict[str, Any] | None
    layout: Layout | None
    trace: dict[str, Any]
    window_from: int
    provider: str | None = None
    estimated: bool = False
    citations: list[dict[str, Any]] = field(default_factory=list)
    calls: tuple[Charge, ...] = ()
    versions: tuple[Version, ...] = ()


class ConversationStore(Protocol):
    """The writes of a conversation's owner. `Fenced`: another owner; `NotFound`: it is gone; `ConversationEnded`."""

    async def activate(self, key: ConversationKey, host: str) -> Activation:
        """Take the conversation over: raise the epoch, set a new activation id, inherit its turns. Always allowed."""
        ...

    async def accept(self, key: ConversationKey, owner: Ownership, send: Send) -> AcceptedTurn:
        """One transaction: idempotency key, fence, reservation, next `seq`, user message, turn, outbox event.

        A turn that `regenerates` adds no message: `NotFound` where the named one, or the user's that it answers, is no
        part of the conversation. Raises `IdempotencyMismatch`, `ConversationBusy` for `on_busy: reject` with an
        unfinished turn, and `BudgetExceeded` where `reserve` could cross the tenant's hard limit.
        """
        ...

    async def start(self, key: ConversationKey, owner: Ownership, turn_id: str) -> bool:
        """Move a queued turn to running; True if its cancellation was asked for meanwhile."""
        ...

    async def next_attempt(
        self, key: ConversationKey, owner: Ownership, turn_id: str, attempt: int, calls: Sequence[Charge] = ()
    ) -> None:
        """Make `attempt` the current one of a running turn; `calls` are those of the attempt before it."""
        ...

    async def finish(
        self, key: ConversationKey, owner: Ownership, turn: UnfinishedTurn, attempt: int, reply: Reply
    ) -> Ended:
        """One transaction: reply, ledger, trace, outbox event, the turn's end, and what was held for it given back.

        A reply that `regenerates` supersedes the one before it if it is complete, else it stands beside it. A turn
        whose cancellation was asked for before ends as cancelled. Finishing again answers what was stored.
        """
        ...

    async def change(self, key: ConversationKey, owner: Ownership, fields: dict[str, Any], end: bool) -> Conversation:
        """Set the given fields (`title`, `metadata`, `system_prompt`, `user_id`), or end the conversation."""
        ...

    async def append(self, owner: Ownership, append: Append) -> Appended:
        """Add a system message, once for each idempotency key. Raises `ConversationEnded`, `IdempotencyMismatch`,
        and `MessageGone` where the key's message was deleted."""
        ...

    async def delete(self, key: ConversationKey, owner: Ownership) -> None:
        """Remove the conversation and all that belongs to it."""
        ...

    async def shadow(self, key: ConversationKey, turn_id: str, report: dict[str, Any], calls: Sequence[Charge]) -> None:
        """Add `report` to the trace of a completed turn as `shadow`, and charge `calls`. Raises `NotFound`."""
        ...

    async def keep_summary(self, key: ConversationKey, owner: Ownership, summary: Summary) -> None:
        """Put `summary` in the place of the stored one, for the next owner and for whoever asks."""
        ...

    async def summary_made(
        self, key: ConversationKey, turn_id: str, report: dict[str, Any], calls: Sequence[Charge]
    ) -> None:
        """Add `report` to the trace of an ended turn as `summary`, and charge `calls`. Raises `NotFound`."""
        ...

    async def tool_calls(self, tenant: str, turn_id: str) -> list[ToolCall]:
        """The calls that a turn has written down, in order of round and place."""
        ...

    async def plan_calls(self, key: ConversationKey, owner: Ownership, turn_id: str, calls: Sequence[ToolCall]) -> None:
        """Write the calls of a round down, before any of them is made. Those that stand already stay as they are."""
        ...

    async def start_calls(
        self, key: ConversationKey, owner: Ownership, turn_id: str, round: int, by: str
    ) -> list[ToolCall]:
        """Take the calls of a round up (`domain.tool_calls.taken_up`); as they stand then: those that are started are
        to be made. `by`: a UUID of this one start; asked for again with it, nothing is taken up twice."""
        ...

    async def end_call(self, tenant: str, turn_id: str, ended: ToolCall) -> ToolCall:
        """Say how a started call ended, whoever owns the conversation now; the call as it is kept."""
        ...

    async def between(self, key: ConversationKey, after: int, before: int, limit: int) -> list[Remembered]:
        """The first `limit` messages of the turns behind `after` and before `before`, no superseded ones, in order."""
        ...

    async def before(self, key: ConversationKey, order: int, limit: int) -> list[Remembered]:
        """The user's message at `order` and at most `limit` messages before it, no superseded ones, in order of `seq`.

        Replies to the message itself are left out.
        """
        ...

    async def replayed(self, key: ConversationKey, send: Send) -> AcceptedTurn | None:
        """The turn that this idempotency key named before, or None. Raises `IdempotencyMismatch`."""
        ...

    async def ended(self, tenant: str, turn_id: str) -> Ended | None:
        """A turn as stored, if it has ended; None while it runs. Raises `NotFound`."""
        ...


class Ledger(Protocol):
    """Money for calls that belong to no stored turn. A tenant without a budget is not held up."""

    async def reserve(self, tenant: str, turn_id: str, usd: Decimal | None, seconds: float) -> None:
        """Hold `usd` of the tenant's budget, for `seconds` if nobody settles. Raises `BudgetExceeded`."""
        ...

    async def settle(
        self,
        tenant: str,
        turn_id: str,
        calls: Sequence[Charge],
        *,
        attempt: int = 1,
        user_id: str | None = None,
        caller: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        """Enter the calls, once each, and give back what was held. Safe to repeat, also after `CommitUnknown`."""
        ...


class Leases(Protocol):
    """Which hosts are alive, and the turns of those that are not."""

    async def renew(self, host: str) -> None: ...

    async def release(self, host: str) -> None: ...

    async def prune(self) -> None:
        """Remove what nobody will ask for again: old idempotency keys, confirmed outbox rows, leases long gone."""
        ...

    async def unfinished(self, host: str, age: float) -> list[tuple[ConversationKey, str]]:
        """Unfinished turns, older than `age` seconds, of the conversations that `host` owns."""
        ...

    async def orphans(self, lease: float, limit: int) -> list[ConversationKey]:
        """Conversations with unfinished turns whose host has not renewed for `lease` seconds."""
        ...


class Hosts(Protocol):
    """The conversations' hosts, as the ingress sees them. Fenced and interrupted calls have been repeated already.

    Every method raises the domain's errors; `Unavailable` where no host answered.
    """

    async def send(self, send: Send) -> Accepted | Ended:
        """`Accepted` once the turn stands in Postgres; `Ended` for `wait`, and for a replay of an ended turn."""
        ...

    async def change(self, change: Change) -> Conversation: ...

    async def append(self, append: Append) -> Appended: ...

    async def delete(self, key: ConversationKey) -> None: ...

    async def cancel(self, key: ConversationKey, turn_id: str) -> None:
        """Tell the owner that the turn's cancellation stands in Postgres; returns when the turn has ended."""
        ...


@carried
@dataclass(frozen=True, slots=True)
class HeadInUse:
    """`version` 0 is the shared set. `active`: the version that should be used; `problem`: why it is not."""

    version: int
    intents: tuple[str, ...]
    embedder: str
    active: int = 0
    problem: str | None = None


@carried
@dataclass(frozen=True, slots=True)
class Understanding:
    """What a message was taken to mean, and its vector, which is handed on.

    `intent`: the best of `ranked`, or `other` where the message is `out_of_scope`. `complexity`: the message's rank, in
    [0, 1], among reference prompts by the probability that a cheap model's answer would not do; None without a scorer.
    `version`: of the tenant's head that said so, 0 for the shared set. `clarification`: what to ask where no intent is
    sure. `needs_products`: whether an answer to the best intent has to know products.
    """

    intent: Intent
    ranked: list[Intent]
    embedding: Embedding
    complexity: float | None = None
    version: int = 0
    out_of_scope: bool = False
    out_of_scope_score: float = 0.0
    entities: tuple[Entity, ...] = ()
    clarification: Clarification | None = None
    needs_products: bool = False


class Classifier(Protocol):
    async def classify(self, text: str, tenant: str = "") -> Understanding:
        """`tenant`: whose own head and complexity score count. Raises `Unavailable` or `Overloaded`; a turn goes on
        without an intent then."""
        ...

    async def classify_many(self, texts: Sequence[str], tenant: str = "") -> list[Understanding]:
        """Up to 256 texts, all by the same version; without their vectors and complexity. Raises as `classify`."""
        ...

    async def evaluate(self, examples: Sequence[Example], tenant: str = "") -> dict[str, Any]:
        """How well the tenant's head knows these examples, and its `version`."""
        ...

    async def head(self, tenant: str) -> HeadInUse:
        """What names the tenant's intents at the moment."""
        ...


class Embedder(Protocol):
    async def embed(self, text: str) -> Embedding: ...

    async def embed_many(self, texts: Sequence[str]) -> list[Embedding]:
        """Up to 256 texts."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> int: ...

    async def describe(self) -> EmbedderInfo: ...


class TenantsSettings(Protocol):
    """What tenants are set to, at most a second or two old."""

    async def settings(self, tenant: str) -> TenantSettings:
        """Raises `Unavailable` where it was never read and cannot be now."""
        ...


class TenantLimits(Protocol):
    """How much tenants may ask for, at most a second or two old."""

    async def limits(self, tenant: str) -> Limits:
        """Raises `Unavailable` where they were never read and cannot be now."""
        ...


class RateLimits(Protocol):
    """Buckets of requests, tokens and turns.

    Never more is let in than the rules allow, however many ask at once. A turn's lease ends by itself some time after
    its holder has fallen silent.
    """

    async def take(self, request: str, rules: Sequence[Rule]) -> Taken:
        """Take of all buckets at once, or of none where one of them refuses. `request`: an id. Raises `Unavailable`,
        also where it may have been done."""
        ...

    async def settle(self, request: str, rules: Sequence[Rule], by: int) -> None:
        """The turn of the request, if it is one, has ended, and took `by` tokens more than were taken for it, or less.
        Raises `Unavailable`."""
        ...


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...
