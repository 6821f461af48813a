"""A series that creeps is told from one that only moves."""

import random

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trend import slope, trend

TIMES = [10.0 * number for number in range(180)]


def test_a_leak_under_noise_is_seen() -> None:
    drawn = random.Random(1)
    assert trend("host rss_mb", TIMES, [500 + 0.05 * at + drawn.uniform(-20, 20) for at in TIMES]).creeps


def test_a_warm_up_and_spikes_are_no_leak() -> None:
    values = [min(500 + at, 900) + (300 if number % 7 == 0 else 0) for number, at in enumerate(TIMES)]
    assert trend("host rss_mb", TIMES, values).creeps is False


def test_what_grows_by_design_has_no_verdict() -> None:
    assert trend("table turns rows", TIMES, TIMES).creeps is None


@given(st.floats(-100, 100), st.floats(-1e6, 1e6))
def test_the_slope_of_a_line_is_its_slope(by: float, start: float) -> None:
    times = TIMES[:20]
    assert abs(slope(times, [start + by * at for at in times]) - by) < 1e-6
