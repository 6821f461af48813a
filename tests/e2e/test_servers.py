"""PostgreSQL behind PgBouncer, and Redis, of the system: each dies while clients send, and their history is judged."""

import asyncio
import signal
import time
from collections import Counter

import httpx
import pytest

from tests.faults import campaign
from tests.faults.calls import Caller
from tests.faults.checker import check
from tests.servers.given import servers

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(servers() is None, reason="`make test-servers` runs it, on servers of the system"),
]
CLIENTS = 6
MODEL = {"model": "mock,n=20,itl=5"}
BEFORE, AFTER = 2, 5  # messages of each client that are answered before the death, and after it
PATIENCE = 90.0  # seconds for each of both
DIES = {  # what gets which signal; the set starts it again
    "PgBouncer": ("pgbouncer", signal.SIGKILL),
    "PostgreSQL": ("bin/postgres", signal.SIGQUIT),
    "Redis": ("redis-server", signal.SIGKILL),
}


@pytest.mark.parametrize("part", DIES)
def test_what_clients_saw_while_a_server_died_is_what_is_stored(brain, provider, part):
    result = campaign.Result(0, 0.0)
    asyncio.run(_send_while_it_dies(brain, result.history, part))
    asyncio.run(campaign.settle(brain, result.history))
    result.calls = httpx.get(provider.removesuffix("/v1") + "/stats").json()["by_user"]
    campaign.provided(result)
    assert [str(violation) for violation in check(result.history)] == []
    unanswered = {call.http for call in result.history.operations if call.outcome == "unknown"}
    assert unanswered <= {None, 200, 503}, unanswered


async def _send_while_it_dies(brain, history, part):
    title, how = DIES[part]
    stop = asyncio.Event()
    async with campaign.session(brain) as http, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_client(Caller(f"{part}-{number}", http, history.add), brain.conversation(), stop))
        await _answered(history, BEFORE)
        dying = brain.processes(title)
        assert len(dying) == 1
        dying[0].send_signal(how)
        await _answered(history, AFTER)
        stop.set()
    assert dying[0].pid not in {process.pid for process in brain.processes(title)}


async def _client(caller, conversation, stop):
    """One message after the other, whole and streamed in turn, each sent again until it is acknowledged."""
    number = 0
    while not stop.is_set():
        number += 1
        send = caller.send if number % 2 else caller.send_streamed
        content, key, last = f"{caller.name} says {number}", f"{caller.name}-{number}", None
        while not (call := await send(conversation, content, key, MODEL, retry_of=last)).acknowledged:
            assert call.outcome != "refused", call
            last = call.id
            await asyncio.sleep(0.1)


async def _answered(history, more):
    """Until each client got this many more answers."""
    before, deadline = _counted(history), time.monotonic() + PATIENCE
    while len(now := _counted(history)) < CLIENTS or any(now[name] - before[name] < more for name in now):
        assert time.monotonic() < deadline, (before, now)
        await asyncio.sleep(0.05)


def _counted(history):
    return Counter(call.client for call in history.operations if call.kind == "send" and call.outcome == "ok")
