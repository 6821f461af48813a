"""Who holds a channel's connection (`domain.lines.LineLeases`): a hash in Redis that its holder renews.

A grip's epoch is at least Redis's time in microseconds: it grows also over a Redis that lost its data.
"""

from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.channels import Channel, ChannelState
from domain.errors import Unavailable
from domain.lines import Grip, Held

LEASE = 6.0  # seconds
KEPT = 30 * 86_400  # seconds that a cursor and an epoch are known after the last grip

_TAKE = """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local epoch = math.max(now, (tonumber(redis.call('HGET', KEYS[2], 'epoch')) or 0) + 1)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', string.format('%.0f', epoch), 'connected', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'epoch', string.format('%.0f', epoch))
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {string.format('%.0f', epoch), redis.call('HGET', KEYS[2], 'resume')}
"""
_RENEW = """
local found = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'connected', ARGV[4], 'since', ARGV[5], 'problem', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'resume', ARGV[7]) end
redis.call('EXPIRE', KEYS[2], ARGV[8])
return 1
"""
_RELEASE = """
local found = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if found[1] == ARGV[1] and found[2] == ARGV[2] then redis.call('DEL', KEYS[1]) end
return 1
"""


class RedisLineLeases:
    """`holder`: this process, by the name under which its `LineCalls` are heard."""

    def __init__(self, redis: Redis, holder: str, lease: float = LEASE) -> None:
        self._redis, self._holder, self.lease = redis, holder, lease

    async def take(self, channel: Channel) -> Grip | None:
        found = await self._do(_TAKE, channel, self._holder, self._milliseconds, KEPT)
        if not found:
            return None
        epoch, *resume = found
        return Grip(int(epoch), resume[0].decode() if resume and resume[0] else None)

    async def renew(self, channel: Channel, grip: Grip, state: ChannelState, resume: str | None) -> bool:
        told = (
            "1" if state.connected else "0",
            "" if state.since is None else state.since.isoformat(),
            state.problem or "",
            resume or "",
        )
        return bool(await self._do(_RENEW, channel, self._holder, grip.epoch, self._milliseconds, *told, KEPT))

    async def release(self, channel: Channel, grip: Grip) -> None:
        await self._do(_RELEASE, channel, self._holder, grip.epoch)

    async def look(self, channel: Channel) -> Held | None:
        try:
            asking: Any = self._redis.hgetall(_keys(channel)[0])
            found = {name.decode(): value.decode() for name, value in (await asking).items()}
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable("who holds this channel is not known at the moment") from error
        if not found:
            return None
        since = datetime.fromisoformat(found["since"]).astimezone(UTC) if found.get("since") else None
        return Held(found["holder"], ChannelState(found["connected"] == "1", since, found.get("problem") or None))

    @property
    def _milliseconds(self) -> int:
        return round(self.lease * 1000)

    async def _do(self, script: str, channel: Channel, *args: Any) -> Any:
        try:
            asking: Any = self._redis.eval(script, 2, *_keys(channel), *args)
            return await asking
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable("who holds this channel is not known at the moment") from error


def _keys(channel: Channel) -> tuple[str, str]:
    held = f"brain:{channel.tenant}:line:{{{channel.id}}}"
    return held, f"{held}:last"
