"""The clock that the answers of a replica share."""

import asyncio

from deployments.beat import Beat


async def test_whoever_waits_hears_the_same_beat() -> None:
    beat = Beat(lambda: 0.005)
    heard: list[str] = []

    async def answer(name: str) -> None:
        with beat.answer(name):
            for _ in range(3):
                await beat.wait(name)
                heard.append(name)

    async with asyncio.timeout(10):
        await asyncio.gather(*(answer(name) for name in "abc"))
    assert sorted(heard[:3]) == sorted(heard[3:6]) == sorted(heard[6:]) == ["a", "b", "c"]
    assert len(beat) == 0


async def test_who_has_ended_waits_for_no_beat_and_the_others_still_do() -> None:
    beat = Beat(lambda: 1000)
    async with asyncio.timeout(10):
        with beat.answer("a"), beat.answer("b"):
            await beat.wait("a")  # the first beat is at once
            ends, stays = (asyncio.create_task(beat.wait(name)) for name in "ab")
            await asyncio.sleep(0)
            beat.end("a")
            await ends
            await beat.wait("a")
            assert not stays.done()
            beat.end("b")
            await stays
    beat.end("a")  # late


async def test_the_interval_is_asked_anew_for_each_beat() -> None:
    asked: list[int] = []

    def interval() -> float:
        asked.append(len(beat))
        return 0.001

    beat = Beat(interval)
    async with asyncio.timeout(10):
        with beat.answer("a"):
            await beat.wait("a")
            with beat.answer("b"):
                await beat.wait("b")
    assert asked == [1, 2]


async def test_an_answer_that_is_given_up_leaves_nothing_behind() -> None:
    beat = Beat(lambda: 0.001)
    with beat.answer("a"):
        await beat.wait("a")
        left = asyncio.create_task(beat.wait("a"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    async with asyncio.timeout(10):
        with beat.answer("b"):
            await beat.wait("b")
            await beat.wait("b")
