"""A clock that is put back is noticed, also where it was put ahead before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.clock import BACK, Clock, ClockPutBack


class Machine:
    steady = 0.0
    jumped = 0.0

    def pass_by(self, seconds: float, jump: float = 0.0) -> None:
        self.steady += seconds
        self.jumped += jump

    def clock(self) -> Clock:
        return Clock(lambda: 1.7e9 + self.steady + self.jumped, lambda: self.steady)


@given(st.lists(st.sampled_from([0.0, 2.0, 3600.0])), st.sampled_from([-BACK - 1, -3600.0]))
def test_whatever_was_before_it_a_clock_put_back_is_told_and_stays_told(ahead, back):
    machine = Machine()
    clock = machine.clock()
    for jump in ahead:
        machine.pass_by(1.0, jump)
        clock.check()
    machine.pass_by(1.0, back)
    clock.look()
    machine.pass_by(7200.0, -back)
    with pytest.raises(ClockPutBack, match="put back"):
        clock.check()


def test_a_clock_that_is_set_by_little_or_put_ahead_is_no_reason():
    machine = Machine()
    clock = machine.clock()
    for jump in (0.001, -0.5, 86400.0, -BACK + 0.5):
        machine.pass_by(1.0, jump)
        clock.check()


def test_an_ahead_that_comes_and_goes_is_a_clock_put_back():
    machine = Machine()
    clock = machine.clock()
    machine.pass_by(1.0, 2 * 86400.0)
    clock.look()
    machine.pass_by(1.0, -2 * 86400.0)
    with pytest.raises(ClockPutBack):
        clock.check()
