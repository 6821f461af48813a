"""What Ray's workers run first."""

import gc

import pytest

from serve_app.embedded import ray_hooks
from tests.conftest import wait_until


@pytest.fixture
def collecting():
    yield
    gc.enable()


def test_a_worker_collects_nothing_while_it_imports_and_then_as_ever(collecting, monkeypatch):
    monkeypatch.setattr(ray_hooks, "IMPORTING", 0.2)
    ray_hooks.collect_later()
    assert not gc.isenabled()
    wait_until(gc.isenabled, 10)
