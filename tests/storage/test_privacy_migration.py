"""The way of revision 0015 there and back."""

import psycopg
import pytest

from storage.migrations import downgrade, upgrade
from tests.conftest import make_database
from tests.storage.backup_world import fill, shape


def settled(url):
    """The schema as it is, grants in the order of their names."""
    return {
        what: [tuple(",".join(sorted(str(one).strip("{}").split(","))) for one in row) for row in rows]
        for what, rows in shape(url).items()
    }


@pytest.fixture
def url(postgres_folder):
    return make_database(postgres_folder)


def test_down_and_up_again_is_as_if_nothing_had_been(url):
    there = settled(url)
    downgrade(url, "0011")
    before = settled(url)
    assert before != there
    upgrade(url)
    assert settled(url) == there
    downgrade(url, "0011")
    assert settled(url) == before
    with psycopg.connect(url) as connection:
        rights = "SELECT has_column_privilege('brain_definer', 'brain.usage', 'user_id', 'UPDATE')"
        assert connection.execute(rights).fetchone() == (False,)


async def test_no_row_of_others_is_lost_on_the_way(url):
    keys = await fill(url)
    with psycopg.connect(url) as connection:
        before = connection.execute("SELECT count(*) FROM brain.messages").fetchone()
    downgrade(url, "0011")
    upgrade(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM brain.messages").fetchone() == before
    assert len(keys) == 2
