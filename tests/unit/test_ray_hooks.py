"""What Ray's workers run first."""

import gc
import multiprocessing

import pytest

from serve_app.embedded import ray_hooks
from tests.conftest import wait_until


@pytest.fixture
def collecting():
    yield
    gc.enable()


def test_a_worker_collects_nothing_while_it_imports_and_then_as_ever(collecting, monkeypatch):
    monkeypatch.setattr(ray_hooks, "IMPORTING", 1.0)
    ray_hooks.collect_later()
    assert not gc.isenabled()
    with multiprocessing.get_context("fork").Pool(1) as forked:
        assert forked.apply(gc.isenabled)
    wait_until(gc.isenabled, 10)
