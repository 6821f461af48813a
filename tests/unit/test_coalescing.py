"""Calls that carry what waits."""

import asyncio

import pytest

from deployments.coalescing import Coalesced
from domain.errors import Unavailable


class Calls:
    """A far side that answers when it is told to; it keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def __call__(self, items: list[int]) -> list[int]:
        self.sent.append(items)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        return [2 * item for item in items]

    async def settled(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                await asyncio.sleep(0)


async def test_a_few_go_alone_and_at_once_and_the_rest_together() -> None:
    calls = Calls()
    coalesced = Coalesced(calls, at_once=2, largest=3)
    answers = [asyncio.create_task(coalesced.run(n)) for n in range(7)]
    await calls.settled(2)
    assert calls.sent == [[0], [1]]
    calls.answers[1].set_result(None)
    await calls.settled(3)
    assert calls.sent[2] == [2, 3, 4]
    calls.answers[0].set_result(None)
    await calls.settled(4)
    assert calls.sent[3] == [5, 6]
    for answer in calls.answers[2:]:
        answer.set_result(None)
    assert await asyncio.gather(*answers) == [0, 2, 4, 6, 8, 10, 12]
    one_more = asyncio.create_task(coalesced.run(7))
    await calls.settled(5)
    calls.answers[4].set_result(None)
    assert await one_more == 14


async def test_what_a_call_raises_reaches_all_that_it_carried_and_no_others() -> None:
    calls = Calls()
    coalesced = Coalesced(calls, at_once=1)
    answers = [asyncio.create_task(coalesced.run(n)) for n in range(3)]
    await calls.settled(1)
    calls.answers[0].set_exception(Unavailable("gone"))
    await calls.settled(2)
    calls.answers[1].set_exception(Unavailable("gone too"))
    found = await asyncio.gather(*answers, return_exceptions=True)
    assert [str(error) for error in found] == ["gone", "gone too", "gone too"]
    after = asyncio.create_task(coalesced.run(3))
    await calls.settled(3)
    calls.answers[2].set_result(None)
    assert await after == 6


async def test_an_answer_of_another_length_fails_its_callers_and_nobody_hangs() -> None:
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(items: list[int]) -> list[int]:
        if items == [0]:
            await first
        return items[:1]

    coalesced = Coalesced(call, at_once=1)
    answers = [asyncio.create_task(coalesced.run(n)) for n in range(3)]
    await asyncio.sleep(0)
    first.set_result(None)
    found = await asyncio.gather(*answers, return_exceptions=True)
    assert found[0] == 0
    assert isinstance(found[2], ValueError)


async def test_a_cancelled_item_is_never_sent_and_one_cancelled_on_its_way_hurts_nobody() -> None:
    calls = Calls()
    coalesced = Coalesced(calls, at_once=1)
    first, gone, stays, leaves = (asyncio.create_task(coalesced.run(n)) for n in range(4))
    await calls.settled(1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    first.cancel()  # it was alone on its way; what waits goes next
    await calls.settled(2)
    assert calls.sent == [[0], [2, 3]]
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    calls.answers[1].set_result(None)
    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await first
