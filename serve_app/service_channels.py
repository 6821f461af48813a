"""Channels over WebSockets, as a process of the service has them."""

import uuid

from adapters.allow_list import AllowList
from adapters.channels.service import ServiceChannel
from adapters.channels.service_connection import Pace
from adapters.channels.service_frames import LONGEST
from adapters.outgoing import Outgoing
from storage.channels import PostgresChannels
from storage.line_calls import RedisLineCalls
from storage.line_leases import LEASE, RedisLineLeases
from storage.postgres import Pool
from storage.redis import open_redis
from storage.sealing import MasterKeys

WAIT = 10.0  # seconds for a connection
MOST = 10_000  # connections of a process


def service_channel(
    pool: Pool, keys: MasterKeys, allowed: AllowList, redis_url: str, lease: float = LEASE, pace: Pace | None = None
) -> ServiceChannel:
    """`lease`: seconds after which another process takes over from one that died."""
    holder, redis = uuid.uuid4().hex, open_redis(redis_url)
    return ServiceChannel(
        RedisLineLeases(redis, holder, lease),
        RedisLineCalls(redis, open_redis(redis_url, timeout=10), holder),
        Outgoing(allowed, WAIT, LONGEST, connections=MOST),
        PostgresChannels(pool, keys).try_now,
        pace,
    )
