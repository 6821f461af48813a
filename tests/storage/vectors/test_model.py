"""Any sequence of calls, beside a plain dictionary that is searched by brute force."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from domain.vectors import Found, VectorRecord, Where
from tests.storage.vectors.given import BACKENDS, SPACE, running, same, unit

tenants = st.sampled_from(["tenant_a", "tenant_b"])
names = st.sampled_from([f"msg_{number}" for number in range(12)])
conversations = st.sampled_from(["conv_1", "conv_2", "conv'3"])
users = st.sampled_from([None, "u1", 'u"2'])
intents = st.sampled_from([None, "refund", "order"])
roles = st.sampled_from(["user", "assistant"])
times = st.integers(0, 5).map(float)
# So few that ties are common, and so far apart that rounding decides nothing.
directions = st.sampled_from([unit(x, y, z) for x in (-1, 0, 1) for y in (0, 1) for z in (0, 1) if x or y or z])
records = st.builds(VectorRecord, names, conversations, directions, roles, times, users, intents)
wheres = st.none() | st.builds(
    Where,
    user=users,
    conversation=st.none() | conversations,
    other_than=st.none() | conversations,
    role=st.none() | roles,
    intent=intents,
    since=st.none() | times,
    until=st.none() | times,
)


def allowed(record: VectorRecord, where: Where | None) -> bool:
    if where is None:
        return True
    equal = all(
        getattr(where, name) in (None, getattr(record, name)) for name in ("user", "conversation", "role", "intent")
    )
    other = where.other_than is None or where.other_than != record.conversation
    since, until = where.since or 0, 1e9 if where.until is None else where.until
    return equal and other and since <= record.at < until


class Calls(RuleBasedStateMachine):
    backend = ""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, dict[str, VectorRecord]] = {"tenant_a": {}, "tenant_b": {}}
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        backend = self.run(self.stack.enter_async_context(running(self.backend, folder / "vectors")))
        self.store = backend.open(SPACE)

    def run(self, call):
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    @rule(tenant=tenants, some=st.lists(records, max_size=6))
    def upsert(self, tenant, some):
        self.run(self.store.upsert(tenant, some))
        self.model[tenant] |= {one.id: one for one in some}

    @rule(tenant=tenants, some=st.lists(names, max_size=4))
    def delete(self, tenant, some):
        self.run(self.store.delete(tenant, some))
        for name in some:
            self.model[tenant].pop(name, None)

    @rule(tenant=tenants, conversation=conversations)
    def delete_conversation(self, tenant, conversation):
        self.run(self.store.delete_conversation(tenant, conversation))
        self.model[tenant] = {k: v for k, v in self.model[tenant].items() if v.conversation != conversation}

    @rule(tenant=tenants)
    def delete_tenant(self, tenant):
        self.run(self.store.delete_tenant(tenant))
        self.model[tenant] = {}

    @rule(tenant=tenants)
    def optimise(self, tenant):
        self.run(self.store.optimise(tenant))

    @rule(tenant=tenants, vector=directions, limit=st.integers(1, 15), where=wheres)
    def search(self, tenant, vector, limit, where):
        expected = [
            Found(one.id, one.conversation, round(float(np.dot(vector, one.vector)), 4))
            for one in self.model[tenant].values()
            if allowed(one, where)
        ]
        expected = sorted(expected, key=lambda one: (-one.score, one.id))[:limit]
        found = self.run(self.store.search(tenant, vector, limit, where))
        assert [replace(one, score=round(one.score, 4)) for one in found] == expected

    @rule(tenant=tenants, some=st.lists(names, max_size=5))
    def fetch(self, tenant, some):
        found = self.run(self.store.fetch(tenant, some))
        expected = [self.model[tenant][name] for name in some if name in self.model[tenant]]
        assert len(found) == len(expected) and all(map(same, found, expected))

    @invariant()
    def counts(self):
        for tenant, kept in self.model.items():
            assert self.run(self.store.count(tenant)) == len(kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_answers_as_a_dictionary_would(backend):
    machine = type("Calls", (Calls,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
