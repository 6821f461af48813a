"""Requests that no channel signed: how many may come, from where, and whom that leaves alone."""

import asyncio
from contextlib import suppress

import pytest

from domain.errors import Unavailable
from domain.ids import new_id
from serve_app.edge_rules import counted_as
from serve_app.ingress.unsigned import BY_ADDRESS, BY_BOTH, EVERY, WINDOW, Unsigned
from storage.attempts import Attempts, Limit, TooManyAttempts

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 0.0


class Channels:
    """Those that exist, and how often somebody asked which."""

    def __init__(self):
        self.ids, self.asked, self.error = [], 0, None

    async def __call__(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return list(self.ids)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def channels():
    return Channels()


@pytest.fixture
def attempts(clock):
    return Attempts(None, lambda: clock.now)


@pytest.fixture
def replica(clock, channels, attempts):
    """Makes one more; all count together."""
    return lambda: Unsigned(attempts, channels, lambda: clock.now)


@pytest.fixture
def unsigned(replica):
    return replica()


async def refused(unsigned, address, channel):
    """Whether a request that is not signed is refused by then, without having been looked at."""
    try:
        await unsigned.check(address, channel)
    except TooManyAttempts:
        return True
    try:
        await unsigned.failed(address, channel)
    except TooManyAttempts:
        return False
    return False


async def used_up(unsigned, address=HERE):
    while not await refused(unsigned, address, new_id("chn")):
        continue


async def test_after_some_to_one_channel_no_more_are_looked_at_until_the_window_is_over(unsigned, clock):
    for _ in range(BY_BOTH):
        await unsigned.failed(HERE, "a")
    await unsigned.check(HERE, "a")
    with pytest.raises(TooManyAttempts):
        await unsigned.failed(HERE, "a")
    clock.now = WINDOW / 2
    with pytest.raises(TooManyAttempts) as told:
        await unsigned.check(HERE, "a")
    assert WINDOW / 2 - 2 <= int(told.value.headers["retry-after"]) <= WINDOW / 2 + 2
    await unsigned.check(HERE, "b")
    await unsigned.check(THERE, "a")
    clock.now = WINDOW + 2
    await unsigned.check(HERE, "a")


async def test_after_many_to_all_sorts_of_channels_only_those_that_exist_are_looked_at(unsigned, channels):
    channels.ids = ["good"]
    looked_at = [not await refused(unsigned, HERE, f"guess {n}") for n in range(2 * BY_ADDRESS)]
    assert looked_at.count(True) == BY_ADDRESS + 1
    await unsigned.check(HERE, "good")
    await unsigned.check(THERE, "guess 1")
    with pytest.raises(TooManyAttempts):
        await unsigned.check(HERE, "another")


async def test_what_is_no_id_is_one_channel_by_whatever_name(unsigned):
    looked_at = [not await refused(unsigned, HERE, None) for _ in range(2 * BY_BOTH)]
    assert looked_at == [True] * (BY_BOTH + 1) + [False] * (BY_BOTH - 1)


async def test_where_one_bound_is_reached_the_other_counts_on(unsigned, attempts):
    """A replica that does not know yet whom others refuse asks for both."""
    for _ in range(BY_ADDRESS + BY_BOTH):
        with suppress(TooManyAttempts):
            await unsigned.failed(HERE, "a")
    for name in ("", "a"):
        with pytest.raises(TooManyAttempts):
            await attempts.take([Limit(f"inbound:{name}:{HERE}", BY_ADDRESS if not name else BY_BOTH, WINDOW)])


async def test_a_channel_that_exists_is_guessed_at_no_more_often_where_the_address_has_used_up_its_own(
    unsigned, channels
):
    channels.ids = ["good"]
    await used_up(unsigned)
    assert [await refused(unsigned, HERE, "good") for _ in range(BY_BOTH + 3)].count(False) == BY_BOTH + 1
    with pytest.raises(TooManyAttempts):
        await unsigned.failed(HERE, "another")  # it is answered as one that does not exist


async def test_a_channel_goes_on_at_every_replica_also_after_a_start(replica, channels, clock):
    channels.ids = ["good"]
    one, two = replica(), replica()
    await used_up(one)
    assert not await refused(two, HERE, new_id("chn")), "it has not heard yet"
    for each in (one, two, replica()):
        await each.check(HERE, "good")
    for each in (one, two):
        assert await refused(each, HERE, new_id("chn"))


async def test_who_guesses_makes_a_replica_ask_seldom_which_channels_exist(unsigned, channels, clock):
    await used_up(unsigned)
    assert await asyncio.gather(*(refused(unsigned, HERE, new_id("chn")) for _ in range(200))) == [True] * 200
    assert channels.asked == 1
    channels.ids = ["new"]
    assert await refused(unsigned, HERE, "new")
    clock.now += EVERY
    await unsigned.check(HERE, "new")
    await unsigned.check(HERE, "new")
    assert channels.asked == 2


async def test_while_the_database_is_away_the_last_list_counts(unsigned, channels, clock):
    channels.ids = ["good"]
    await used_up(unsigned)
    channels.error, clock.now = Unavailable("no database"), clock.now + EVERY
    assert await refused(unsigned, HERE, "another")
    await unsigned.check(HERE, "good")
    assert await refused(unsigned, HERE, "another") and channels.asked == 2


async def test_what_is_remembered_is_bounded(unsigned, monkeypatch):
    monkeypatch.setattr("serve_app.ingress.unsigned.BOUND", 10)
    monkeypatch.setattr("serve_app.ingress.unsigned.BY_BOTH", 1)
    for n in range(50):  # a service whose address changes all the time
        await unsigned.failed(f"192.0.2.{n}", "a")
        with pytest.raises(TooManyAttempts):
            await unsigned.failed(f"192.0.2.{n}", "a")
    assert len(unsigned._refused) == 10
    await unsigned.check("192.0.2.0", "a")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:202", "192.0.2.2"),
        ("64:ff9b:1::c000:202", "64:ff9b:1::/64"),
        ("64:ff9b::1:c000:202", "64:ff9b::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_address_counts_with_all_that_its_owner_has(address, counted):
    assert counted_as(address) == counted
