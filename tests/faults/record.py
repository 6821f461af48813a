"""What a run has left: the conversation as it stood after each commit, read from the database."""

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from domain.conversation import ConversationKey
from tests.faults.hosts import Told
from tests.faults.interleaving import Gate

_STATE = """
SELECT c.epoch, c.activation::text, c.status, c.next_seq, c.message_count,
    ARRAY(SELECT ROW(t.id, t.status, t.attempt, t.user_seq) FROM brain.turns t
        WHERE t.tenant_id = c.tenant_id AND t.conversation_id = c.id ORDER BY t.user_seq),
    ARRAY(SELECT ROW(m.seq, m.turn_id, m.role, m.content) FROM brain.messages m
        WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id ORDER BY m.seq)
FROM brain.conversations c WHERE c.tenant_id = $1 AND c.id = $2
"""


@dataclass(frozen=True, slots=True)
class StoredTurn:
    id: str
    status: str
    attempt: int
    user_seq: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    seq: int
    turn: str
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class State:
    """A conversation's rows. One that is deleted, or never was, has the epoch -1."""

    epoch: int = -1
    activation: str | None = None
    status: str = "gone"
    next_seq: int = 1
    count: int = 0
    turns: tuple[StoredTurn, ...] = ()
    messages: tuple[StoredMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """`by` says whose call it was and with which claim; `state` is what others see from then on."""

    by: Gate
    state: State


@dataclass(slots=True)
class Record:
    """`inherited`: the unfinished turns that one more host found, after the run, in its order."""

    begin: State
    commits: list[Commit] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    inherited: list[str] = field(default_factory=list)

    @property
    def states(self) -> list[State]:
        return [self.begin, *(commit.state for commit in self.commits)]


async def read_state(connection: "asyncpg.Connection[Any]", key: ConversationKey) -> State:
    row = await connection.fetchrow(_STATE, key.tenant, key.conversation)
    if row is None:
        return State()
    epoch, activation, status, next_seq, count, turns, messages = row
    return State(
        epoch,
        activation,
        status,
        next_seq,
        count,
        tuple(StoredTurn(*turn) for turn in turns),
        tuple(StoredMessage(*message) for message in messages),
    )
