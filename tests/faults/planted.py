"""Defects planted in the protocol: each in a database of its own, and gone with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from domain.commands import UnfinishedTurn
from tests.conftest import make_database
from tests.faults.actors import ActorHost
from tests.faults.hosts import Host

TENANT = "ten_x"
FENCE = "PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);"
UNFINISHED = "IN ('queued', 'running')"


class HastyHost(Host):
    """Tells the client that its message stands before it does."""

    __slots__ = ()

    async def accept(self, text: str) -> None:
        self.acknowledge(text, None)
        await Host.accept(self, text)


class UnorderedHost(Host):
    """Starts the turn that came last."""

    __slots__ = ()

    def first(self) -> UnfinishedTurn:
        return list(self.turns.values())[-1]


@dataclass(frozen=True, slots=True)
class Planted:
    """`edits`: functions in SQL, with what is replaced in each by what. `game`: where two hosts come upon it.

    `found_by`: the invariant that it breaks, the first one in their order.
    """

    name: str
    game: str
    found_by: str
    edits: tuple[tuple[str, str, str], ...] = ()
    statements: tuple[str, ...] = ()
    host: type[Host] = field(default=Host)


def unfenced(function: str, game: str) -> Planted:
    return Planted(f"{function} is not fenced", game, "a_superseded_owner_writes_nothing", ((function, FENCE, ""),))


PLANTED = (
    Planted(
        "the fence lets everybody in",
        "take-over",
        "a_superseded_owner_writes_nothing",
        (("fence", "IF NOT FOUND", "IF false"),),
    ),
    Planted(
        "the fence looks without a lock",
        "take-over",
        "a_superseded_owner_writes_nothing",
        (("fence", "FOR NO KEY UPDATE", ""),),
    ),
    Planted(
        "the fence of real actors looks without a lock",
        "clients",
        "a_superseded_owner_writes_nothing",
        (("fence", "FOR NO KEY UPDATE", ""),),
        host=ActorHost,
    ),
    unfenced("accept_turn", "take-over"),
    unfenced("start_turn", "idle successor"),
    Planted(
        "next_attempt is not fenced",  # so nothing holds a take-over back until it is seen
        "second attempt",
        "a_turn_moves_only_forward",
        (("next_attempt", FENCE, ""),),
    ),
    unfenced("finish_turn", "take-over"),
    unfenced("change_conversation", "end"),
    unfenced("delete_conversation", "deletion"),
    Planted(
        "an activation leaves the epoch as it is",
        "take-over",
        "each_activation_raises_the_epoch",
        (("activate", "epoch = epoch + 1", "epoch = epoch"),),
    ),
    Planted(
        "a key names one message a request",
        "take-over",
        "an_acknowledged_message_stands_exactly_once",
        (("accept_turn", "p_caller, p_key, p_hash, p_turn)", "p_caller, p_key || p_turn, p_hash, p_turn)"),),
    ),
    Planted(
        "a message is acknowledged before it is committed",
        "take-over",
        "an_acknowledged_message_stands_exactly_once",
        host=HastyHost,
    ),
    Planted(
        "a message takes two numbers",
        "take-over",
        "numbers_have_no_gap",
        (("accept_turn", "p_regenerates IS NULL THEN 1", "p_regenerates IS NULL THEN 2"),),
    ),
    Planted(
        "a take-over puts the running turn back into the queue",
        "take-over",
        "a_turn_moves_only_forward",
        (
            (
                "activate",
                "RETURN jsonb_build_object(",
                "UPDATE brain.turns SET status = 'queued' WHERE tenant_id = p_tenant"
                " AND conversation_id = p_conversation AND status = 'running'; RETURN jsonb_build_object(",
            ),
        ),
    ),
    Planted(
        "a turn that has ended ends again, and its replies are not unique",
        "death",
        "a_turn_has_at_most_one_reply",
        (("finish_turn", "again := t.status NOT " + UNFINISHED, "again := false"),),
        ("DROP INDEX brain.messages_one_reply_a_version",),
    ),
    Planted(
        "a turn that has ended ends again, and only the index forbids it",
        "death",
        "hosts_meet_only_the_domains_refusals",
        (("finish_turn", "again := t.status NOT " + UNFINISHED, "again := false"),),
    ),
    Planted(
        "a message runs at once although another one is answered",
        "take-over",
        "turns_run_one_at_a_time_in_order",
        (("accept_turn", "THEN 'queued' ELSE 'running' END", "THEN 'running' ELSE 'running' END"),),
    ),
    Planted("the last turn is started first", "take-over", "turns_run_one_at_a_time_in_order", host=UnorderedHost),
    Planted(
        "a take-over forgets the queue",
        "idle successor",
        "the_next_owner_inherits_what_is_unfinished",
        (("activate", "t.status " + UNFINISHED, "t.status IN ('running')"),),
    ),
    Planted(
        "an ended conversation takes messages in",
        "end",
        "an_ended_conversation_takes_nothing_in",
        (("accept_turn", "IF v_status <> 'active'", "IF false"),),
    ),
)


@contextmanager
def scratch(folder: Path, bug: Planted | None = None) -> Iterator[str]:
    """The URL of a fresh database with a tenant and, where one is named, a planted defect; at the end it is dropped."""
    url = make_database(folder)
    name = str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", (TENANT,))
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
        if bug is not None:
            _plant(connection, bug)
    try:
        yield url
    finally:
        with psycopg.connect(f"postgresql://postgres@/postgres?host={folder}", autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _plant(connection: "psycopg.Connection[tuple[str, ...]]", bug: Planted) -> None:
    for function, right, wrong in bug.edits:
        row = connection.execute("SELECT pg_get_functiondef(%s::regproc)", (f"brain.{function}",)).fetchone()
        assert row is not None and right in row[0], f"{function} has no {right!r}"
        connection.execute(row[0].replace(right, wrong).encode())
    for statement in bug.statements:
        connection.execute(statement.encode())
