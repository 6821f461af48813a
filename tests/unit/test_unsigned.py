"""Requests that no channel signed: how many may come, from where, and whom that leaves alone."""

import pytest

from serve_app.edge_rules import counted_as
from serve_app.ingress.unsigned import BY_ADDRESS, BY_BOTH, WINDOW, Unsigned
from storage.attempts import Attempts, TooManyAttempts

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 0.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def unsigned(clock):
    return Unsigned(Attempts(None, lambda: clock.now), lambda: clock.now)


async def refused(unsigned, address, channel):
    """Whether a request that is not signed is refused by then, without having been looked at."""
    try:
        unsigned.check(address, channel)
    except TooManyAttempts:
        return True
    try:
        await unsigned.failed(address, channel)
    except TooManyAttempts:
        return False
    return False


async def test_after_some_to_one_channel_no_more_are_looked_at_until_the_window_is_over(unsigned, clock):
    for _ in range(BY_BOTH):
        await unsigned.failed(HERE, "a")
    unsigned.check(HERE, "a")
    with pytest.raises(TooManyAttempts):
        await unsigned.failed(HERE, "a")
    clock.now = WINDOW / 2
    with pytest.raises(TooManyAttempts) as told:
        unsigned.check(HERE, "a")
    assert WINDOW / 2 - 2 <= int(told.value.headers["retry-after"]) <= WINDOW / 2 + 2
    unsigned.check(HERE, "b")
    unsigned.check(THERE, "a")
    clock.now = WINDOW + 2
    unsigned.check(HERE, "a")


async def test_after_many_to_all_sorts_of_channels_only_those_that_sign_there_are_looked_at(unsigned):
    unsigned.signed(HERE, "good")
    looked_at = [not await refused(unsigned, HERE, f"guess {n}") for n in range(2 * BY_ADDRESS)]
    assert looked_at.count(True) == BY_ADDRESS + 1
    unsigned.check(HERE, "good")
    unsigned.check(THERE, "guess 1")
    with pytest.raises(TooManyAttempts):
        unsigned.check(HERE, "another")


async def test_a_channel_that_signs_is_guessed_at_no_more_often_than_others(unsigned):
    unsigned.signed(HERE, "good")
    assert [await refused(unsigned, HERE, "good") for _ in range(BY_BOTH + 3)].count(False) == BY_BOTH + 1


async def test_what_is_remembered_is_bounded(unsigned, monkeypatch):
    monkeypatch.setattr("serve_app.ingress.unsigned.BOUND", 10)
    for n in range(50):
        unsigned.signed(HERE, str(n))
    assert len(unsigned._signing) == 10
    unsigned.check(HERE, "0")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_address_counts_with_all_that_its_owner_has(address, counted):
    assert counted_as(address) == counted
