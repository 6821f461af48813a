"""Places that are kept free of a tenant beyond its share: enough that the others need not wait, and no more."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.policies.shares import BURST, WINDOW, Shares
from tests.unit.policies_world import END, Clock, Gate, Wire, World


class Lane:
    """Bookkeeping of who got a place, by the rule under test."""

    def __init__(self, bound):
        self.clock, self.bound, self.busy = Clock(), bound, []
        self.shares = Shares(self.clock.monotonic)

    def ask(self, tenant, weight=1.0):
        self.shares.asks(tenant, weight)
        if not self.shares.may(tenant, weight, len(self.busy), self.bound):
            return False
        self.shares.takes(tenant, weight)
        self.busy.append(tenant)
        return True

    def fill(self, tenant, weight=1.0):
        while self.ask(tenant, weight):
            pass
        return self.busy.count(tenant)

    def give(self, tenant, number=1):
        for _ in range(number):
            self.busy.remove(tenant)
            self.shares.gives(tenant)

    def steady(self, places, seconds):
        """Each tenant holds so many places for so long."""
        for tenant, number in places.items():
            for _ in range(number):
                assert self.ask(tenant)
        self.clock.now += seconds


def test_who_is_alone_gets_every_place():
    assert Lane(32).fill("flood") == 32


def test_a_flood_leaves_what_the_others_used_lately_and_they_get_it_back_at_once():
    lane = Lane(32)
    lane.steady({"a": 3, "b": 3, "c": 3}, 1)
    for tenant in "abc":
        lane.give(tenant, 2)
    lane.fill("flood")
    used, flood = 9, lane.busy.count("flood")
    assert flood <= 32 - used
    assert flood >= 32 - used - BURST * 32 / 4  # what it had of its own before it was beyond its share
    assert all(lane.ask(tenant) for tenant in "abcabc")


def test_what_was_not_used_for_a_while_is_given_away():
    lane = Lane(32)
    lane.steady({"a": 6, "b": 6}, 1)
    lane.give("a", 5)
    lane.give("b", 5)
    kept = 32 - 2 - lane.fill("flood")
    for _ in range(4):
        lane.clock.now += WINDOW / 2 + 1
        for tenant in "ab":
            lane.give(tenant)
            assert lane.ask(tenant)
    assert kept >= 32 - 2 - 22  # 22: a third and half of the rest, the largest burst of one of three
    assert 32 - 2 - lane.fill("flood") <= 2


def test_a_burst_of_who_stays_within_its_share_on_average_is_nobodys_business():
    lane = Lane(32)
    lane.steady({"a": 2, "b": 2, "c": 2, "d": 2}, 5)
    assert [lane.ask("a") for _ in range(12)] == [True] * 12
    assert lane.busy.count("a") < BURST * 32 / 4


def test_each_gets_its_share_by_weight_however_much_the_other_wants():
    lane = Lane(30)
    lane.fill("two", 2.0)
    lane.shares.asks("one", 1.0)
    for _ in range(30):
        lane.give(lane.busy[0])
        lane.clock.now += 0.1
        if not lane.ask("one", 1.0):
            lane.ask("two", 2.0)
    assert lane.busy.count("one") >= 10
    assert len(lane.busy) <= 30


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(["ask", "ask", "give", "wait"])),
        max_size=200,
    )
)
@settings(max_examples=150)
def test_nobody_below_its_share_is_refused_while_a_place_is_free_and_no_place_is_given_twice(steps):
    lane = Lane(7)
    for tenant, step in steps:
        if step == "wait":
            lane.clock.now += 3
        elif step == "give" and tenant in lane.busy:
            lane.give(tenant)
        else:
            held, free = lane.busy.count(tenant), len(lane.busy) < lane.bound
            got = lane.ask(tenant)
            tenants = len(lane.shares._holdings)
            assert got or not free or held >= lane.bound / tenants
            assert len(lane.busy) <= lane.bound
            within = [holding for holding in lane.shares._holdings.values() if not holding.beyond]
            assert lane.shares._within == sum(holding.places for holding in within)


async def test_tenants_below_their_share_never_wait_for_a_flood():
    """A lane of ten places at work: each of three tenants asks for its place again and again."""
    world = World(Wire([]), max_connections=10)

    async def second():
        await world.clock.sleep(1)

    world.wire.plans = [[second, "x", END]]
    for _ in range(3):
        steady = [world.ask(tenant=f"t{number}") for number in range(3)]
        await world.clock.until_done(*(one.task for one in steady))
    flood = [world.ask(tenant="flood") for _ in range(50)]
    waits = []
    for _ in range(10):
        steady = [world.ask(tenant=f"t{number}") for number in range(3)]
        await world.clock.advance(1.25)
        await world.clock.settle()
        waits += [one.trace[0].waited for one in steady]
    assert waits == [0] * 30
    for one in flood:
        one.task.cancel()
    await world.clock.settle()


async def test_who_waits_for_longer_than_the_window_is_still_known():
    world = World(Wire([]), max_connections=1)

    async def long():
        await world.clock.sleep(3 * WINDOW)

    world.wire.plans = [[long, "x", END]]
    asked = [world.ask(tenant=f"t{number}") for number in range(3)]
    await world.clock.settle()
    await world.clock.advance(WINDOW + 5)
    asked.append(world.ask(tenant="late"))
    await world.clock.until_done(*(one.task for one in asked))
    assert [one.text for one in asked] == ["x"] * 4


async def test_places_kept_for_others_are_given_away_though_nobody_comes_or_goes():
    gate = Gate()
    world = World(Wire(["x", END]), max_connections=10)

    async def second():
        await world.clock.sleep(1)

    world.wire.plans = [[second, "x", END]]
    for _ in range(3):
        steady = [world.ask(tenant=f"t{number}") for number in range(3)]
        await world.clock.until_done(*(one.task for one in steady))
    world.wire.plans = [[gate, "x", END]]
    flood = [world.ask(tenant="flood") for _ in range(20)]
    await world.clock.settle()
    assert world.wire.active < 10
    await world.clock.advance(3 * WINDOW)
    assert world.wire.active == 10
    gate.open.set()
    await world.clock.until_done(*(one.task for one in flood))
