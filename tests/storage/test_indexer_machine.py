"""Any order of talk, deletions, changes, indexers that come and die, and spaces: in the end vectors are messages."""

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from domain.conversation import ConversationKey
from domain.errors import ConversationBusy, NotFound
from domain.ids import new_id
from domain.indexing import identity
from domain.ledger import Version
from serve_app.cli.reindex import build_space
from serve_app.embedded.refusal import Refusal
from storage.spaces import PostgresSpaces
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.memory_world import Crash, MemoryWorld, Steps, WordEmbedder


class Indexing(RuleBasedStateMachine):
    url = ""
    conversations, messages = Bundle("conversations"), Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = MemoryWorld(self.url, self.run(open_pool(self.url, 3)))
        self.run(self.world.empty())
        self.lives = {}
        self.generation = 0

    def run(self, work):
        return self.loop.run_until_complete(work)

    async def is_active(self, embedder: WordEmbedder) -> bool:
        known = await PostgresSpaces(self.world.pool).active()
        return known is not None and known.space.embedder == identity(embedder.info)

    def teardown(self) -> None:
        try:
            self.run(self.world.settle())
            self.run(self.world.check())
        finally:
            self.run(self.world.close())
            self.run(self.world.pool.close())
            self.loop.close()

    @initialize()
    def tenants(self) -> None:
        self.tenants_ = [self.run(self.world.tenant()) for _ in range(2)]

    @rule(target=conversations, tenant=st.integers(0, 1), user=st.sampled_from(["u", "v", None]))
    def begin(self, tenant, user) -> ConversationKey:
        return self.run(self.world.conversation(self.tenants_[tenant], user))

    @rule(target=messages, key=conversations, text=st.sampled_from(["a", "b c", " "]), beside=st.booleans())
    def say(self, key, text, beside):
        versions = (Version(new_id("msg"), "beside", "m", None, None),) if beside else ()
        try:
            asked, _ = self.run(self.world.say(key, text, "answer", "i", versions=versions))
        except NotFound:
            return None
        return key.tenant, versions[0].message_id if beside else asked

    @rule(message=consumes(messages))
    def delete(self, message) -> None:
        if message is not None:
            with contextlib.suppress(NotFound, ConversationBusy):
                self.run(self.world.reader.delete_message(*message))

    @rule(key=consumes(conversations))
    def delete_all(self, key) -> None:
        self.run(self.world.delete_conversation(key))

    @rule(key=conversations, user=st.sampled_from(["u", "v"]))
    def change_hands(self, key, user) -> None:
        async def change():
            owner = (await self.world.store.activate(key, "0192f0c1-0000-7000-8000-000000000000")).ownership
            await self.world.store.change(key, owner, {"user_id": user}, False)

        with contextlib.suppress(NotFound):
            self.run(change())

    @rule(name=st.sampled_from("AB"))
    def work(self, name) -> None:
        indexer = self.lives.setdefault(name, self.world.indexer())
        self.run(indexer.step())
        self.run(indexer.fill_step())

    @rule(at=st.integers(1, 40))
    def work_and_die(self, at) -> None:
        steps = Steps()
        steps.crash_at = at
        indexer = self.world.indexer(steps)
        try:
            self.run(indexer.step())
            self.run(indexer.fill_step())
        except Crash:
            pass

    @rule()
    def time_passes(self) -> None:
        self.run(self.world.leases_run_out())

    @rule(other=st.booleans(), dies=st.integers(1, 30))
    def reindex(self, other, dies) -> None:
        """With the same embedder or another one, to the end or not."""
        embedder = WordEmbedder(f"words{self.generation + other}") if other else self.world.embedder
        steps = Steps()
        steps.crash_at = dies if dies < 15 else None

        class Dying(WordEmbedder):
            async def embed_for(self, name, texts):
                return await steps.take("embed", lambda: embedder.embed_for(name, texts))

            async def describe(self):
                return await steps.take("describe", embedder.describe)

        try:
            self.run(build_space(self.world.pool, Dying(), self.world.open_store))
        except (Crash, Refusal):
            if not self.run(self.is_active(embedder)):  # else it died later, with the products
                return
        self.world.embedder = embedder
        self.generation += other
        self.lives.clear()  # the service was started with it


@pytest.mark.timeout(400)
def test_in_the_end_vectors_are_messages(postgres_folder):
    Indexing.url = make_database(postgres_folder)
    run_state_machine_as_test(
        Indexing,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
