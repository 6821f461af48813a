"""Which of a tenant's scorers a replica uses as what is stored changes under it."""

import numpy as np
import pytest

from deployments.complexity import packaged
from deployments.complexity_training import AdaptedScorer
from deployments.tenant_scorers import FRESH, TenantScorers
from domain.errors import Unavailable
from storage.complexity_scorers import Stored

EVEN = [0.0, 1.0]  # ranks are the scores themselves
MINE = "minilm"


def certain(bias: float) -> bytes:
    """A scorer that says the same to everything: more than a half where `bias` is positive."""
    prior = packaged()
    weights = np.zeros(len(prior.gate.standard.mean) + prior.dimensions, np.float32)
    return AdaptedScorer(prior, 0.0, bias, weights, 50).to_bytes()


class Replica:
    """A classifier's scorers over a store whose only row is `stored`; each `score` comes when it is asked for anew."""

    def __init__(self) -> None:
        self.stored: Stored | Exception | None = None
        self.now = 0.0
        self.scorers = TenantScorers(self._load, lambda: self.now)

    async def _load(self, tenant: str) -> Stored | None:
        if isinstance(self.stored, Exception):
            raise self.stored
        return self.stored

    async def score(self) -> float | None:
        self.now += FRESH
        return await self.scorers.score("ten_x", "is it red?", None, MINE)


@pytest.fixture
def replica() -> Replica:
    return Replica()


async def test_a_version_that_comes_again_with_another_artefact_is_read_again(replica: Replica) -> None:
    replica.stored = Stored(1, MINE, certain(2.0), EVEN)
    before = await replica.score()
    assert before is not None and before > 0.8
    replica.stored = Stored(1, MINE, certain(-2.0), EVEN)
    after = await replica.score()
    assert after is not None and after < 0.2


async def test_other_ranks_of_the_same_artefact_are_taken(replica: Replica) -> None:
    replica.stored = Stored(1, MINE, certain(0.0), EVEN)
    assert await replica.score() == pytest.approx(0.5)
    replica.stored = Stored(1, MINE, certain(0.0), [0.0, 0.5, 1.0, 1.0, 1.0])
    assert await replica.score() == pytest.approx(0.25)


async def test_what_has_not_changed_is_not_made_again(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    replica.stored = Stored(1, MINE, certain(2.0), EVEN)
    first = await replica.score()
    monkeypatch.setattr("deployments.tenant_scorers.from_bytes", None)
    assert await replica.score() == first


async def test_a_scorer_of_another_embedder_or_a_broken_one_is_not_used(replica: Replica) -> None:
    for unusable in (Stored(1, "other", certain(2.0), EVEN), Stored(2, MINE, b"?", EVEN)):
        replica.stored = unusable
        assert await replica.score() is None


async def test_a_store_that_is_away_leaves_the_last_one_and_a_removed_one_is_gone(replica: Replica) -> None:
    replica.stored = Stored(1, MINE, certain(2.0), EVEN)
    first = await replica.score()
    replica.stored = Unavailable("the database is away")
    assert await replica.score() == first
    replica.stored = None
    assert await replica.score() is None
