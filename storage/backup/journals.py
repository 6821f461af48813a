"""Streams of a time that was taken back: a turn that runs again counts its attempts again, and would find them."""

from collections.abc import Collection

from redis import Redis

from storage.journal import stream_key

BATCH = 1000


def forget_journals(redis_url: str, tenants: Collection[str]) -> int:
    """Remove the streams of these tenants' turns from a Redis; gives how many keys went. Raises redis's errors."""
    gone = 0
    with Redis.from_url(redis_url, socket_timeout=10, socket_connect_timeout=10) as redis:
        batch: list[bytes] = []
        for key in redis.scan_iter(match=f"{stream_key('*', '*', 0)[:-1]}*", count=BATCH):
            if key.split(b":")[1].decode() in tenants:
                batch.append(key)
            if len(batch) == BATCH:
                gone += redis.unlink(*batch)
                batch = []
        if batch:
            gone += redis.unlink(*batch)
    return gone
