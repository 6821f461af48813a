"""What was freed goes back to the system."""

import ctypes

import psutil
import pytest

from deployments.freed_memory import give_back

MIB = 1024 * 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is another than glibc")
def test_what_the_c_library_keeps_of_freed_memory_is_given_back():
    taken = [bytearray(64 * 1024) for _ in range(3200)]  # each too small for a mapping of its own
    last = bytearray(64 * 1024)  # behind them, so that freeing them alone shortens nothing
    del taken
    before = psutil.Process().memory_info().rss
    give_back()
    assert before - psutil.Process().memory_info().rss > 100 * MIB and len(last)
