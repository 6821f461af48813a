"""Journals of turns that are erased: they would end by themselves, within a quarter of an hour."""

from collections.abc import Sequence

from redis.asyncio import Redis

from storage.journal import stream_key

TOGETHER = 200  # turns in one command
SPARE = 1  # attempts that may have begun since they were counted


async def forget_journals(redis: Redis, tenant: str, turns: Sequence[tuple[str, int]]) -> int:
    """Remove all that Redis holds of these turns (id, attempts); how many streams there were. Raises redis's errors."""
    gone = 0
    for start in range(0, len(turns), TOGETHER):
        streams = [
            stream_key(tenant, turn, attempt)
            for turn, attempts in turns[start : start + TOGETHER]
            for attempt in range(1, attempts + SPARE + 1)
        ]
        async with redis.pipeline(transaction=False) as pipeline:
            for key in streams:
                pipeline.delete(key)
                pipeline.delete(key + ":claim", key + ":owner")
            gone += sum((await pipeline.execute())[::2])
    return gone
