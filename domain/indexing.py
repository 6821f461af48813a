"""Keeping the vectors of messages equal to the messages: what an indexer needs of the outbox and of what is stored.

An event only says where to look. What is done follows from what is stored at that moment, so an event may come twice,
late, or in another order than it happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.embedding import EmbedderInfo, Embedding
from domain.message import Role
from domain.vectors import Space


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of the outbox in a consumer's hands. `delivery`: how often it was handed out, 1 the first time."""

    tenant: str
    id: int
    delivery: int


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    id: int
    topic: str
    payload: dict[str, Any]
    delivery: int


@dataclass(frozen=True, slots=True)
class Lag:
    """`waiting`: rows (100,000 stand for any more); `seconds`: the age of the oldest; `set_aside`: rows given up."""

    waiting: int
    seconds: float
    set_aside: int


class Outbox(Protocol):
    """The rows of the outbox that one consumer has not confirmed. Every method may raise `Unavailable`."""

    async def claim(self, generation: int, limit: int) -> list[Claim]:
        """Rows that wait, some of each tenant, now this consumer's for a lease; none where `generation` is over."""
        ...

    async def read(self, tenant: str, claims: Sequence[Claim]) -> list[OutboxEvent]: ...

    async def confirm(self, generation: int, ids: Sequence[int]) -> int:
        """These are done; how many counted: not those whose lease ran out and that another one has, and none where
        `generation` is over."""
        ...

    async def fail(self, ids: Sequence[int], error: str) -> int:
        """These cannot be worked on: each is tried again later, and set aside in the end; how many were just now."""
        ...

    async def release(self, ids: Sequence[int]) -> None:
        """Give these back untried."""
        ...

    async def lag(self) -> Lag: ...


@dataclass(frozen=True, slots=True)
class StoredText:
    """A message as it is stored: what its vector is made of, and what is kept beside it. `at`: Unix seconds."""

    id: str
    conversation: str
    content: str
    role: Role
    at: float
    user: str | None
    intent: str | None


class StoredTexts(Protocol):
    """Messages of a tenant. Every method may raise `Unavailable`."""

    async def read(self, tenant: str, ids: Sequence[str]) -> dict[str, StoredText]:
        """Those of them that are there, by id."""
        ...

    async def of_turns(self, tenant: str, turns: Sequence[str]) -> list[str]:
        """The ids of the messages that these turns answer and of their replies, also those kept beside."""
        ...

    async def of_conversation(self, tenant: str, conversation: str) -> list[str] | None:
        """The ids of a conversation's messages; None where there is no such conversation."""
        ...

    async def after(self, tenant: str, message: str, limit: int) -> list[tuple[str, str]]:
        """Tenants and ids of the messages of all tenants behind this one, in order of both."""
        ...


@dataclass(frozen=True, slots=True)
class KnownSpace:
    """A space and how far it is: `filled` once what was there before it is in it. `generation`: of the indexer's claims
    while this space is the active one."""

    space: Space
    filled: bool
    generation: int


class Spaces(Protocol):
    """Which space counts. Every method may raise `Unavailable`."""

    async def active(self) -> KnownSpace | None: ...

    async def building(self) -> KnownSpace | None: ...

    async def create(self, info: EmbedderInfo, state: str) -> None:
        """Begin a space of a new name, `active` or `building`; nothing where there is one of that state."""
        ...

    async def fill(self, name: str, reached: tuple[str, str] | None = None) -> tuple[str, str] | None:
        """Take up or go on with filling: messages up to this one are in. Gives the place to go on from; None where
        another one fills it, or nobody needs to."""
        ...

    async def finish(self, name: str) -> bool:
        """What this filler has filled becomes the active space; what happened meanwhile is handed out again."""
        ...

    async def retired(self, seconds: float) -> list[Space]:
        """Spaces that have not counted for so long that nobody works on them any more."""
        ...

    async def forget(self, name: str) -> None:
        """A retired space's vectors are gone."""
        ...


class SpaceEmbedder(Protocol):
    """The embedder, held to what it is taken for."""

    async def describe(self) -> EmbedderInfo: ...

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> list[Embedding]:
        """Up to 256 texts, by this embedder and no other one: raises `OtherEmbedder`."""
        ...


def identity(info: EmbedderInfo) -> str:
    """An embedder by what its vectors depend on."""
    return f"{info.name}@{info.revision}"
