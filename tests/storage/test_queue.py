"""The contract of `domain.queue.Queue`, over Redis Streams and in memory; a machine holds one against the other."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from adapters.queue.redis_queue import RedisQueue, Rules
from domain.cloud_events import CloudEvent
from domain.errors import NotFound, Unavailable
from domain.ids import new_id
from domain.queue import NoSuchTopic, Topic, TopicExists
from storage.redis import open_redis
from tests.conftest import free_port
from tests.doubles.memory_queue import MemoryQueue
from tests.storage.events_world import until

SOON = Rules(lease=0.3, tries=3, pause=0.02, longest=0.1)
LATER = Rules(lease=1000, tries=3, pause=0)


class Names:
    """Topics as storage keeps them, for one test."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}

    async def all(self) -> list[Topic]:
        return list(self._topics.values())

    async def create(self, topic: Topic) -> None:
        if topic.name in self._topics:
            raise TopicExists
        self._topics[topic.name] = topic

    async def delete(self, name: str) -> None:
        if self._topics.pop(name, None) is None:
            raise NoSuchTopic


def event(n: int) -> CloudEvent:
    return CloudEvent(f"evt_{n}", "a.b", "ten_1", datetime(2026, 1, 1, tzinfo=UTC), "conv_1", None, {"n": n})


def numbers(found) -> list[int]:
    return [one.event.data["n"] for one in found]


@pytest.fixture(params=["redis", "memory"])
async def queue(request, redis_url):
    if request.param == "memory":
        yield MemoryQueue(SOON)
        return
    redis = open_redis(redis_url)
    yield RedisQueue(redis, Names(), SOON)
    await redis.aclose()


@pytest.fixture
async def topic(queue):
    name = new_id("int").replace("_", "-")
    await queue.create_topic(Topic(name, ("a.*",)))
    yield name
    await queue.delete_topic(name)


async def test_each_group_is_handed_everything_in_order_and_each_consumer_another_part(queue, topic):
    for group in ("one", "two"):
        await queue.subscribe(topic, group)
    ids = await queue.publish(topic, [event(n) for n in range(10)])
    assert len(set(ids)) == 10
    first = await queue.read(topic, "one", "a", 4)
    second = await queue.read(topic, "one", "b", 100)
    assert numbers(first) == [0, 1, 2, 3] and numbers(second) == [4, 5, 6, 7, 8, 9]
    assert numbers(await queue.read(topic, "two", "a", 100)) == list(range(10))
    assert first[0].event == event(0) and {one.delivery for one in first} == {1}
    assert await queue.acknowledge(topic, "one", [one.id for one in first]) == 4
    assert await queue.acknowledge(topic, "one", [one.id for one in first]) == 0


async def test_a_group_begins_now_or_at_a_time(queue, topic):
    await queue.publish(topic, [event(1)])
    await queue.subscribe(topic, "new")
    await queue.subscribe(topic, "old", datetime.now(UTC) - timedelta(minutes=1))
    await queue.publish(topic, [event(2)])
    assert numbers(await queue.read(topic, "new", "a", 10)) == [2]
    assert numbers(await queue.read(topic, "old", "a", 10)) == [1, 2]
    await queue.subscribe(topic, "new", datetime.now(UTC) - timedelta(minutes=1))  # it is there already
    assert await queue.read(topic, "new", "a", 10) == []


async def test_what_was_rejected_comes_again_and_is_a_dead_letter_in_the_end(queue, topic):
    await queue.subscribe(topic, "one")
    await queue.subscribe(topic, "two")
    await queue.publish(topic, [event(1)])
    deliveries = []
    for _ in range(3):
        (found,) = await until(lambda: queue.read(topic, "one", "a", 10))
        deliveries.append(found.delivery)
        died = await queue.reject(topic, "one", [found.id], "it does not fit")
    assert deliveries == [1, 2, 3] and died == 1
    (letter,) = await queue.dead_letters(topic, None, 10)
    assert (letter.event, letter.group, letter.error, letter.deliveries) == (event(1), "one", "it does not fit", 3)
    assert await queue.dead_letters(topic, letter.id, 10) == []
    assert await queue.send_again(topic, [letter.id]) == 1 and await queue.send_again(topic, [letter.id]) == 0
    assert numbers(await queue.read(topic, "one", "a", 10)) == [1]
    assert numbers(await queue.read(topic, "two", "a", 10)) == [1], (
        "the other group had it once and has it no second time"
    )
    assert (await queue.statistics(topic)).dead == 0


async def test_what_a_consumer_left_is_handed_to_another_and_what_waits_for_its_time_is_not(queue, topic):
    await queue.subscribe(topic, "one")
    await queue.publish(topic, [event(1)])
    (left,) = await queue.read(topic, "one", "a", 10)
    assert await queue.read(topic, "one", "b", 10) == []
    (found,) = await until(lambda: queue.read(topic, "one", "b", 10))
    assert found.id == left.id and found.delivery == 2


async def test_a_group_is_handed_again_what_came_since_a_time(queue, topic):
    await queue.subscribe(topic, "one")
    await queue.publish(topic, [event(1), event(2)])
    found = await queue.read(topic, "one", "a", 10)
    await queue.acknowledge(topic, "one", [one.id for one in found])
    await queue.replay(topic, "one", datetime.now(UTC) - timedelta(minutes=1))
    assert numbers(await queue.read(topic, "one", "a", 10)) == [1, 2]


async def test_figures_tell_what_waits(queue, topic):
    await queue.subscribe(topic, "one")
    await queue.publish(topic, [event(n) for n in range(3)])
    found = await queue.read(topic, "one", "a", 2)
    await queue.reject(topic, "one", [found[0].id], "no")
    told = await queue.statistics(topic)
    assert (told.length, told.dead) == (3, 0) and told.first is not None and told.last is not None
    (group,) = told.groups
    assert (group.name, group.pending, group.retrying, group.consumers) == ("one", 2, 1, 1)
    await queue.unsubscribe(topic, "one")
    assert (await queue.statistics(topic)).groups == []


async def test_what_is_not_there_is_not_found(queue, topic):
    for call in (
        queue.publish("nothing", [event(1)]),
        queue.subscribe("nothing", "one"),
        queue.read(topic, "nobody", "a", 1),
        queue.reject(topic, "nobody", ["1-0"], "no"),
        queue.unsubscribe(topic, "nobody"),
        queue.replay(topic, "nobody", datetime.now(UTC)),
        queue.dead_letters("nothing", None, 1),
        queue.statistics("nothing"),
        queue.delete_topic("nothing"),
    ):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(TopicExists):
        await queue.create_topic(Topic(topic, ("*",)))


async def test_a_reader_waits_for_what_comes(redis_url):
    redis = open_redis(redis_url)
    queue = RedisQueue(redis, Names(), LATER)
    await queue.create_topic(Topic("waited-for", ("*",)))
    await queue.subscribe("waited-for", "one")
    reading = asyncio.create_task(queue.read("waited-for", "one", "a", 10, wait=20))
    await asyncio.sleep(0)
    await queue.publish("waited-for", [event(7)])
    assert numbers(await reading) == [7]
    await queue.delete_topic("waited-for")
    await redis.aclose()


async def test_a_redis_that_is_away_is_unavailable():
    redis = open_redis(f"redis://127.0.0.1:{free_port()}")
    names = Names()
    await names.create(Topic("t", ("*",)))
    with pytest.raises(Unavailable):
        await RedisQueue(redis, names).publish("t", [event(1)])
    await redis.aclose()


GROUPS = st.sampled_from(["one", "two"])
SOME = st.sets(st.integers(0, 9), min_size=1, max_size=3)


def machine(redis_url: str):
    class Compared(RuleBasedStateMachine):
        """Whatever is asked, both answer the same."""

        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.redis = open_redis(redis_url)
            self.name = new_id("int").replace("_", "-")
            self.both = (RedisQueue(self.redis, Names(), LATER), MemoryQueue(LATER))
            self.n = 0
            self.held: dict[str, list[tuple[str, str]]] = {"one": [], "two": []}
            for queue in self.both:
                self.run(queue.create_topic(Topic(self.name, ("*",))))
                for group in self.held:
                    self.run(queue.subscribe(self.name, group))

        def run(self, call):
            return self.runner.run(call)

        def chosen(self, group: str, places: set[int]) -> tuple[list[str], list[str]]:
            held = [self.held[group][place] for place in sorted(places) if place < len(self.held[group])]
            return [one[0] for one in held], [one[1] for one in held]

        @rule(count=st.integers(1, 5))
        def publish(self, count):
            for queue in self.both:
                self.run(queue.publish(self.name, [event(n) for n in range(self.n, self.n + count)]))
            self.n += count

        @rule(group=GROUPS, consumer=st.sampled_from("ab"), limit=st.integers(1, 4))
        def read(self, group, consumer, limit):
            ours, model = (self.run(queue.read(self.name, group, consumer, limit)) for queue in self.both)
            assert sorted((one.event.id, one.delivery) for one in ours) == sorted(
                (one.event.id, one.delivery) for one in model
            )
            paired = {one.event.id: one.id for one in model}
            self.held[group] += [(one.id, paired[one.event.id]) for one in ours]

        @rule(group=GROUPS, places=SOME)
        def acknowledge(self, group, places):
            ids = self.chosen(group, places)
            ours, model = (
                self.run(queue.acknowledge(self.name, group, of)) for queue, of in zip(self.both, ids, strict=True)
            )
            assert ours == model

        @rule(group=GROUPS, places=SOME)
        def reject(self, group, places):
            ids = self.chosen(group, places)
            ours, model = (
                self.run(queue.reject(self.name, group, list(dict.fromkeys(of)), "no"))
                for queue, of in zip(self.both, ids, strict=True)
            )
            assert ours == model

        @rule()
        def send_again(self):
            letters = [self.run(queue.dead_letters(self.name, None, 100)) for queue in self.both]
            assert [(one.event.id, one.group) for one in letters[0]] == [
                (one.event.id, one.group) for one in letters[1]
            ]
            if letters[0]:
                sent = [
                    self.run(queue.send_again(self.name, [found[0].id]))
                    for queue, found in zip(self.both, letters, strict=True)
                ]
                assert sent == [1, 1]

        @invariant()
        def the_figures_are_equal(self):
            ours, model = (self.run(queue.statistics(self.name)) for queue in self.both)
            assert (ours.length, ours.dead) == (model.length, model.dead)
            for one, other in zip(ours.groups, model.groups, strict=True):
                assert (one.name, one.pending, one.retrying) == (other.name, other.pending, other.retrying)

        def teardown(self):
            self.run(self.both[0].delete_topic(self.name))
            self.run(self.redis.aclose())
            self.runner.close()

    return Compared


def test_redis_and_memory_answer_the_same_whatever_is_asked(redis_url):
    run_state_machine_as_test(
        machine(redis_url),
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
