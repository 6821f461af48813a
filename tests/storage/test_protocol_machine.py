"""The ownership protocol as a state machine on real SQL: any order of calls by two hosts, checked after each one."""

import asyncio
import uuid

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from domain.commands import UnfinishedTurn
from domain.errors import ConversationBusy, Fenced, IdempotencyMismatch
from domain.turn import TurnStatus
from storage.conversations import PostgresConversations
from storage.postgres import reading
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send

HOSTS = {name: str(uuid.uuid4()) for name in "AB"}
KEYS = ("k1", "k2", "k3")


class Protocol(RuleBasedStateMachine):
    """`claims` is what each host believes it owns; the last to activate owns. `order` are the accepted turns."""

    url = tenant = ""
    turns = Bundle("turns")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pool = self.run(open_pool(self.url, 2))
        self.store = PostgresConversations(self.pool)
        self.key = make_conversation(self.url, self.tenant)
        self.claims: dict[str, object] = {}
        self.owner: str | None = None
        self.accepted: dict[str, str] = {}  # turn id -> status
        self.by_key: dict[str, tuple[str, bytes]] = {}
        self.cancel: set[str] = set()
        self.contents: list[tuple[str, str]] = []  # (role, content) in order of commits

    def run(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.pool.close())
        self.loop.close()

    @initialize()
    def first_owner(self) -> None:
        self.activate("A")

    @rule(host=st.sampled_from("AB"))
    def activate(self, host: str) -> None:
        found = self.run(self.store.activate(self.key, HOSTS[host]))
        self.claims[host], self.owner = found.ownership, host
        unfinished = [turn.turn.id for turn in found.unfinished]
        assert unfinished == [turn for turn, status in self.accepted.items() if status in ("queued", "running")]

    @rule(
        target=turns,
        host=st.sampled_from("AB"),
        key=st.sampled_from(KEYS),
        text=st.sampled_from("xy"),
        reject=st.booleans(),
    )
    def accept(self, host: str, key: str, text: str, reject: bool):
        if host not in self.claims:
            return None
        send = make_send(
            self.key, text, idempotency_key=f"{self.key.conversation}{key}", on_busy="reject" if reject else "queue"
        )
        busy = any(status in ("queued", "running") for status in self.accepted.values())
        try:
            found = self.run(self.store.accept(self.key, self.claims[host], send))
        except IdempotencyMismatch:
            assert self.by_key[key][1] != send.body_hash
            return None
        except Fenced:
            known = self.by_key.get(key)
            assert host != self.owner and (known is None or self.accepted[known[0]] in ("queued", "running"))
            return None
        except ConversationBusy:
            assert reject and busy and host == self.owner
            return None
        if key in self.by_key:
            assert found.replayed and found.turn.id == self.by_key[key][0]
            return None
        assert host == self.owner and not (reject and busy)
        assert found.turn.status == (TurnStatus.QUEUED if busy else TurnStatus.RUNNING)
        assert found.user_message.seq == len(self.contents) + 1
        self.accepted[found.turn.id] = str(found.turn.status)
        self.by_key[key] = (found.turn.id, send.body_hash)
        self.contents.append(("user", text))
        return UnfinishedTurn(found.turn, found.user_message, "m", {}, True, True)

    @rule(turn=turns, host=st.sampled_from("AB"))
    def start(self, turn, host: str) -> None:
        first = next((t for t, status in self.accepted.items() if status in ("queued", "running")), None)
        if turn is None or host not in self.claims or turn.turn.id != first:
            return
        try:
            wanted = self.run(self.store.start(self.key, self.claims[host], turn.turn.id))
        except Fenced:
            assert host != self.owner
            return
        assert host == self.owner and wanted == (turn.turn.id in self.cancel)
        self.accepted[turn.turn.id] = "running"

    @rule(turn=turns)
    def ask_for_cancellation(self, turn) -> None:
        if turn is None or self.accepted[turn.turn.id] not in ("queued", "running"):
            return
        self.run(self._flag(turn.turn.id))
        self.cancel.add(turn.turn.id)

    async def _flag(self, turn_id: str) -> None:
        async with reading(self.pool, self.tenant) as connection:
            await connection.execute("UPDATE brain.turns SET cancel_requested = true WHERE id = $1", turn_id)

    @rule(
        turn=consumes(turns), host=st.sampled_from("AB"), status=st.sampled_from(["completed", "failed", "cancelled"])
    )
    def finish(self, turn, host: str, status: str) -> None:
        if turn is None or host not in self.claims:
            return
        before = self.accepted[turn.turn.id]
        if before == "queued" and status == "completed":
            return
        reply = make_reply(f"answer by {host}", status)
        try:
            ended = self.run(self.store.finish(self.key, self.claims[host], turn, 1, reply))
        except Fenced:
            assert host != self.owner
            return
        assert host == self.owner
        expected = "cancelled" if status == "completed" and turn.turn.id in self.cancel else status
        assert (ended.turn.status, ended.message.seq) == (expected, len(self.contents) + 1)
        self.accepted[turn.turn.id] = expected
        self.contents.append(("assistant", reply.text))
        again = self.run(self.store.finish(self.key, self.claims[host], turn, 2, make_reply("never", status)))
        assert again == ended

    @invariant()
    def what_is_stored_is_what_was_acknowledged(self) -> None:
        rows = self.run(self._rows())
        assert [row["seq"] for row in rows] == list(range(1, len(self.contents) + 1))
        assert [(row["role"], row["content"]) for row in rows] == self.contents

    async def _rows(self):
        async with reading(self.pool, self.tenant) as connection:
            return await connection.fetch(
                "SELECT seq, role, content FROM brain.messages WHERE conversation_id = $1 ORDER BY seq",
                self.key.conversation,
            )


@pytest.mark.timeout(170)
def test_any_order_of_calls_by_two_hosts_keeps_the_protocol(database_url, tenant):
    Protocol.url, Protocol.tenant = database_url, tenant
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.timeout(170)
def test_the_machine_finds_a_planted_unfenced_write(postgres_folder):
    url = make_database(postgres_folder)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES ('ten_x', 'x')")
        connection.execute(
            "CREATE OR REPLACE FUNCTION brain.fence(p_tenant text, p_conversation text, p_epoch bigint,"
            " p_activation uuid) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'"
        )
    Protocol.url, Protocol.tenant = url, "ten_x"
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Protocol,
            settings=settings(
                max_examples=60,
                stateful_step_count=25,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
