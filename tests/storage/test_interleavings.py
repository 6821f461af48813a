"""The ownership protocol on real SQL, in every order of two hosts over the points where each can be paused."""

import pytest

from tests.faults.actors import ActorHost, without_pauses
from tests.faults.choosing import following
from tests.faults.planted import PLANTED, TENANT, Planted, scratch
from tests.faults.play import Played, arena
from tests.faults.scripts import GAMES, LONG, LONG_ACTORS


@pytest.fixture(scope="module")
def sound(postgres_folder):
    with scratch(postgres_folder) as url:
        yield url


@pytest.mark.parametrize("game", GAMES)
async def test_every_order_of_two_hosts_keeps_what_is_promised(sound, game):
    orders = set()
    async with arena(sound, TENANT) as real:
        async for played in real.exhaust(GAMES[game]):
            assert not played.broken, str(played)
            assert played.schedule not in orders
            orders.add(played.schedule)
    assert len(orders) >= 10


async def test_long_runs_with_deaths_and_lost_answers_keep_what_is_promised(sound):
    async with arena(sound, TENANT) as real:
        async for played in real.at_random(LONG, range(300)):
            assert not played.broken, str(played)


async def test_every_order_of_two_actors_keeps_what_is_promised(sound):
    async with arena(sound, TENANT, ActorHost) as real:
        async for played in real.exhaust(GAMES["clients"]):
            assert not played.broken, str(played)


async def test_actors_that_lose_answers_keep_what_is_promised(sound, monkeypatch):
    without_pauses(monkeypatch)
    async with arena(sound, TENANT, ActorHost) as real:
        async for played in real.at_random(LONG_ACTORS, range(60)):
            assert not played.broken, str(played)


async def test_a_seed_plays_the_same_run_twice(sound):
    async with arena(sound, TENANT) as real:
        once, again = [played async for played in real.at_random(LONG, (7, 7))]
    assert once.schedule == again.schedule


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
async def test_a_planted_defect_is_found_and_found_again(postgres_folder, bug: Planted):
    game = GAMES[bug.game]
    with scratch(postgres_folder, bug) as url:
        async with arena(url, TENANT, bug.host) as faulty:
            found = await anext((played async for played in faulty.exhaust(game) if played.broken), None)
            assert found is not None, "nothing was found"
            assert _first(found) == bug.found_by, str(found)
            again = await faulty.play(game, following(found.schedule))
    assert (again.schedule, _first(again)) == (found.schedule, bug.found_by)


def _first(played: Played) -> str:
    return next(iter(played.broken), "nothing")
