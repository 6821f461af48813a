"""An ingress replica that Serve is about to end tells whoever waits to come again."""

import asyncio

import pytest

from domain.errors import NotFound, Unavailable
from serve_app.leaving import MARGIN, HostsUntil, Leaving, watched


class Hosts:
    """Answers once `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.left = False

    async def send(self, send):
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left = True
            raise
        return send


async def test_who_waits_is_told_before_the_end():
    leaving, hosts = Leaving(), Hosts()
    waiting = asyncio.create_task(HostsUntil(hosts, leaving).send("a"))
    leaving.heard(True, MARGIN)
    leaving.heard(False, MARGIN)
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
    assert hosts.left, "nobody waits for the host any more"


async def test_while_there_is_time_answers_and_errors_are_those_of_the_host():
    leaving, hosts = Leaving(), Hosts()
    leaving.heard(False, MARGIN)  # Serve does not count it yet
    leaving.heard(True, MARGIN)
    leaving.heard(False, MARGIN + 60)
    hosts.go.set()
    assert await HostsUntil(hosts, leaving).send("a") == "a"

    async def missing():
        raise NotFound

    with pytest.raises(NotFound):
        await leaving.within(missing())


async def test_a_replica_that_was_left_out_by_mistake_goes_on():
    leaving, hosts = Leaving(), Hosts()
    leaving.heard(True, MARGIN)
    leaving.heard(False, MARGIN)
    with pytest.raises(Unavailable):
        await HostsUntil(hosts, leaving).send("a")
    leaving.heard(True, MARGIN)
    hosts.go.set()
    assert await HostsUntil(hosts, leaving).send("b") == "b"


async def test_outside_of_a_replica_nothing_ends(caplog):
    assert await watched().within(asyncio.sleep(0, "done")) == "done"
    assert "will not hear of its end" in caplog.text
