"""Channels over a WebSocket: whatever breaks, one message in is one turn, and what goes out arrives in order."""

import asyncio
import sys
import uuid
from contextlib import asynccontextmanager, suppress

import pytest

from adapters.allow_list import NONE
from adapters.channels.service import ServiceChannel
from adapters.channels.service_connection import Pace
from adapters.outgoing import Outgoing
from adapters.transport import OutTransport
from deployments.delivering import Sending
from domain.channels import Binding, Inbound
from domain.deliveries import Retry
from domain.errors import Unavailable
from serve_app.deliveries import Deliveries
from serve_app.ingress.shapes import message_json
from serve_app.service_channels import service_channel
from storage.conversations import PostgresConversations
from storage.lanes import PostgresLanes
from storage.line_calls import RedisLineCalls
from storage.line_leases import RedisLineLeases
from storage.redis import open_redis
from storage.subscribers import by_the_service
from tests.doubles.messaging_service import messaging
from tests.doubles.receiver import ALLOWED, receiving
from tests.servers.given import open_pool
from tests.storage.delivery_world import DeliveryWorld
from tests.unit.ingress_world import MASTER, MemoryJournal, ScriptedHosts

PACE = Pace(first=0.05, longest=0.2, heartbeat=0.1, answer=5.0, patience=0.2)


class Relay:
    """One of the relay's replicas, within the test."""

    def __init__(self, world, redis_url, allowed=ALLOWED, pace=PACE):
        self.port: ServiceChannel = service_channel(world.pool, MASTER, allowed, redis_url, lease=1.0, pace=pace)
        self.deliveries = Deliveries(world.pool, MASTER, allowed, world.hosts, [self.port], held=2.0, look=0.1)

    async def __aenter__(self):
        self.deliveries.start()
        return self

    async def __aexit__(self, *_):
        await self.deliveries.close()


@asynccontextmanager
async def asking(world, redis_url):
    """A process that holds nothing: an ingress."""
    port = service_channel(world.pool, MASTER, ALLOWED, redis_url, lease=1.0)
    yield port
    await port.close()


@pytest.fixture
async def world(url):
    pool = await open_pool(url, 12)
    async with messaging() as service, receiving() as receiver, Outgoing(ALLOWED) as outgoing:
        world = DeliveryWorld(url, pool, outgoing, receiver)
        world.empty()
        service.secrets = receiver.secrets
        world.service, world.hosts = service, ScriptedHosts(PostgresConversations(pool), MemoryJournal())
        yield world
        while running := [one for one in world.hosts.running.values() if not one.done()]:
            await asyncio.gather(*running)
    await pool.close()


async def made(world, **settings):
    return await world.channel(world.tenant(), "service", **{"url": world.service.url, **settings})


async def up(world, channel, beyond=0):
    await world.service.until(lambda: len(world.service.lines) > beyond and channel.id in world.service.live)


def turns(world, channel):
    """Texts of turns, by thread, in the order in which they were accepted."""
    rows = world.sql(
        "SELECT b.thread, m.content FROM brain.messages m JOIN brain.channel_bindings b"
        " ON b.tenant_id = m.tenant_id AND b.conversation_id = m.conversation_id"
        " WHERE b.channel_id = %s AND m.role = 'user' ORDER BY m.seq",
        channel.id,
    )
    found = {}
    for thread, content in rows:
        found.setdefault(thread, []).append(content)
    return found


async def until(condition, within=30):
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_message_is_answered_in_its_thread(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis):
        await up(world, channel)
        hello = service.lines[0].hello
        assert (hello["version"], hello["channel_id"], hello["resume"]) == (1, channel.id, None)
        await service.tell(channel.id, "m-1", "t-1", "where is my parcel")
        await service.acked("m-1")
        await service.until(lambda: service.types("message") and service.types("receipt"))
        await until(lambda: _delivered(world))
    [ack], [receipt], [reply] = service.acks["m-1"], service.types("receipt"), service.types("message")
    assert ack["frame"] == "ack" and ack["duplicate"] is False and ack["turn_id"]
    assert (receipt["in_reply_to"], receipt["message_id"]) == ("m-1", ack["message_id"])
    assert reply["message"]["content"] == "Hello" and (reply["thread"], reply["user"]) == ("t-1", "ann")
    assert reply["conversation_id"] == ack["conversation_id"]


async def test_a_message_told_twice_over_two_connections_is_one_turn(world, own_redis):
    channel, service = await made(world), world.service
    service.twice, service.cut_on_ack = True, 1
    async with Relay(world, own_redis):
        await up(world, channel)
        await service.tell(channel.id, "m-1", "t-1")
        await up(world, channel, beyond=1)
        await service.acked("m-1")
        assert service.acks["m-1"][0]["duplicate"] is True, "the line was cut before the first acknowledgement"
        await service.until(lambda: service.types("message"))
    assert turns(world, channel) == {"t-1": ["hi"]}
    assert len(service.types("message")) == 1


async def test_a_reply_is_told_again_with_its_id_where_the_line_broke_before_the_acknowledgement(world, own_redis):
    channel, service = await made(world, receipts=False), world.service
    service.cut_before_ack = 2
    async with Relay(world, own_redis):
        await up(world, channel)
        await service.tell(channel.id, "m-1", "t-1")
        await service.until(lambda: service.types("message"))
        await until(lambda: _delivered(world))
    told = [one for one in service.attempts if one["type"] == "message"]
    assert len(told) == 3 and len({one["id"] for one in told}) == 1
    assert world.sql("SELECT max(attempts) FROM brain.deliveries WHERE type = 'message'") == [(3,)]


async def _delivered(world):
    return set(world.statuses()) == {"delivered"}


async def test_two_hundred_messages_on_ten_threads_keep_their_order(world, own_redis):
    channel, service = await made(world, receipts=False, typing=False), world.service
    expected = {f"t-{thread}": [f"{thread}.{n}" for n in range(20)] for thread in range(10)}
    async with Relay(world, own_redis), Relay(world, own_redis):
        await up(world, channel)
        for n in range(20):
            for thread in range(10):
                await service.tell(
                    channel.id, f"m-{thread}-{n}", f"t-{thread}", f"{thread}.{n}", cursor=f"{n}.{thread}"
                )
            if n in (5, 12):
                lines = len(service.lines)
                service.live[channel.id].cut()
                await up(world, channel, beyond=lines)
        await service.acked(*(f"m-{thread}-{n}" for thread in range(10) for n in range(20)))
        assert turns(world, channel) == expected
        await service.until(lambda: len(service.types("message")) == 200, 90)
        lines = len(service.lines)
        service.live[channel.id].cut()
        await up(world, channel, beyond=lines)
        assert service.lines[-1].hello["resume"] == "19.9", "all before it was answered"
    replies = {}
    for one in service.types("message"):
        replies.setdefault(one["thread"], []).append(one["message"]["id"])
    for thread, ids in replies.items():
        stored = world.sql(
            "SELECT m.id FROM brain.messages m JOIN brain.channel_bindings b ON b.conversation_id = m.conversation_id"
            " WHERE b.channel_id = %s AND b.thread = %s AND m.role = 'assistant' ORDER BY m.seq",
            *(channel.id, thread),
        )
        assert ids == [row[0] for row in stored], thread


async def test_one_of_two_relays_holds_the_connection_and_the_other_reaches_it(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis) as one, Relay(world, own_redis) as two, asking(world, own_redis) as ingress:
        await up(world, channel)
        await until(lambda: _connected(ingress, channel))
        assert sorted([one.port.connected, two.port.connected]) == [0, 1]
        other = one.port if two.port.connected else two.port
        await until(lambda: other.heartbeat(channel))
        since = (await ingress.status(channel)).since
        assert since is not None and since == (await other.status(channel)).since
        binding = Binding(channel.tenant, channel.id, "service", "t-9", "conv_x", "ann", since)
        await ingress.typing(channel, binding, True, "bob")
        await service.until(lambda: service.types("typing"))
        assert service.types("typing")[0]["thread"] == "t-9"
        await ingress.reconnect(channel)
        await up(world, channel, beyond=1)
        await until(lambda: _connected(ingress, channel))
        assert len(service.lines) == 2 and service.lines[1].hello["epoch"] == service.lines[0].hello["epoch"]


async def _connected(port, channel):
    return (await port.status(channel)).connected is True


async def test_another_relay_takes_over_from_one_that_was_killed(world, own_redis):
    channel, service = await made(world), world.service
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.doubles.relay_process", world.url, own_redis), stdout=asyncio.subprocess.PIPE
    )
    await service.until(lambda: service.lines, 60)
    async with Relay(world, own_redis) as relay:
        await until(lambda: relay.port.heartbeat(channel))
        assert relay.port.connected == 0
        process.kill()
        await process.wait()
        await service.tell(channel.id, "m-1", "t-1")
        await up(world, channel, beyond=1)
        await service.acked("m-1")
        await service.until(lambda: service.types("message"))
        assert relay.port.connected == 1
    assert service.lines[1].hello["epoch"] > service.lines[0].hello["epoch"]
    assert turns(world, channel) == {"t-1": ["hi"]}


async def test_a_relay_that_closes_says_goodbye_and_leaves_the_connection_to_the_other(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis) as first:
        await up(world, channel)
        async with Relay(world, own_redis):
            await first.deliveries.close()
            await up(world, channel, beyond=1)
            await service.until(lambda: service.lines[0].closed == 1001)


async def test_a_service_that_answers_no_ping_is_connected_to_anew(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis):
        await up(world, channel)
        await service.until(lambda: service.pings >= 3)
        assert len(service.lines) == 1
        service.mute = True
        await service.until(lambda: service.lines[0].closed is not None)
        service.mute = False
        await up(world, channel, beyond=1)
    assert service.lines[0].closed == 4504


async def test_what_the_service_refuses_waits_as_it_asks_and_is_told_again(world, own_redis):
    channel, service = await made(world, receipts=False), world.service
    service.refusals = [{"code": "busy", "message": "too much at once", "after": 60}]
    async with Relay(world, own_redis) as relay:
        await up(world, channel)
        await service.tell(channel.id, "m-1", "t-1")
        await until(lambda: _refused(world))
        await relay.port.reconnect(channel)  # what waits is tried at once
        await service.until(lambda: service.types("message"))


async def _refused(world):
    return (
        world.sql("SELECT true FROM brain.deliveries WHERE error = 'busy: too much at once' AND next_at > now()") != []
    )


async def test_frames_that_cannot_be_taken_are_refused_by_id_and_others_end_the_connection(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis):
        await up(world, channel)
        await service.tell(channel.id, "m-1", "t-1", text="")
        await service.acked("m-1")
        assert (service.acks["m-1"][0]["code"], service.acks["m-1"][0]["again"]) == ("invalid_frame", False)
        await service.live[channel.id].socket.send_str("[]")
        await up(world, channel, beyond=1)
        await service.live[channel.id].socket.send_str('{"frame": "tell", "text": "' + "x" * 300_000 + '"}')
        await up(world, channel, beyond=2)
        await service.until(lambda: service.lines[1].closed is not None)
    assert [line.closed for line in service.lines[:2]] == [4400, 1009]
    assert turns(world, channel) == {}


async def test_a_service_that_knows_another_secret_refuses_and_the_status_tells_why(world, own_redis):
    channel, service = await made(world), world.service
    service.secrets = [b"x" * 32]
    async with Relay(world, own_redis), asking(world, own_redis) as ingress:
        await service.until(lambda: service.unsigned >= 2)
        await until(lambda: _problem(ingress, channel, "127.0.0.1 answered 401, not with a WebSocket"))
        service.secrets = world.receiver.secrets
        await up(world, channel)
    assert (await service_channel(world.pool, MASTER, ALLOWED, own_redis).status(channel)).connected is False


async def _problem(port, channel, words):
    return (await port.status(channel)).problem == words


async def test_a_service_of_another_version_is_left(world, own_redis):
    channel, service = await made(world), world.service
    service.version = 2
    async with Relay(world, own_redis), asking(world, own_redis) as ingress:
        await until(lambda: _problem(ingress, channel, "the service speaks version 2"))
        await service.until(lambda: service.lines[0].closed == 4426)


async def test_a_private_address_is_never_connected_to(world, own_redis):
    channel, service = await made(world), world.service
    async with Relay(world, own_redis, allowed=NONE), asking(world, own_redis) as ingress:
        await until(lambda: _problem(ingress, channel, "only https:// can be asked"))
        literal = await made(world, url=service.url.replace("ws://127.0.0.1", "wss://[::ffff:127.0.0.1]"))
        await until(lambda: _there(ingress, literal))
        assert "private network" in (await ingress.status(literal)).problem
    assert service.lines == [] and service.unsigned == 0


async def _there(port, channel):
    return (await port.status(channel)).since is not None


async def test_a_disabled_channel_is_left(world, own_redis):
    who = world.tenant()
    channel, service = await world.channel(who, "service", url=world.service.url), world.service
    async with Relay(world, own_redis) as relay:
        await up(world, channel)
        await world.channel_entries.disable(who, channel.id)
        await service.until(lambda: channel.id not in service.live)
        assert relay.port.connected == 0


@asynccontextmanager
async def asking_aloud(world, redis_url):
    """A relay that holds nothing: it hears answers."""
    async with asking(world, redis_url) as port:
        port.on_receive(lambda *_: None)
        await port.connect([])
        await until(lambda: _hears(port._calls))
        yield port


async def _hears(calls):
    with suppress(Unavailable):
        return await calls.ask(calls.holder, {"do": "ping", "channel_id": "chn_none"}, 5) is not None


@asynccontextmanager
async def holding(redis_url, channel, send):
    """Another process that holds the channel's connection, and does `send` when it is told to."""

    async def obey(order):
        return {} if order["do"] == "ping" else await send()

    holder, redis = uuid.uuid4().hex, open_redis(redis_url)
    calls, leases = RedisLineCalls(redis, open_redis(redis_url, 10), holder), RedisLineLeases(redis, holder, 60)
    calls.on_order(obey)
    await until(lambda: _hears(calls))
    grip = await leases.take(channel)
    assert grip is not None
    yield
    await leases.release(channel, grip)
    await calls.close()


async def ill():
    return {"result": "later", "error": "the service is ill"}


async def something_to_tell(world, channel):
    await world.channels.arrive(channel, Inbound("m-1", "message", "t-1", "ann", "hi"))
    [(conversation,)] = world.sql("SELECT conversation_id FROM brain.channel_bindings")
    world.event(by_the_service(channel.tenant), "conversation.ended", conversation_id=conversation)
    await world.fan_out()


def sending(world, port):
    transport = OutTransport(world.posting, {"service": port}, message_json)
    return Sending(PostgresLanes(world.pool, MASTER), transport, world.figures, Retry(jitter=0))


def pause(world):
    """Seconds until the only delivery is tried."""
    [(found,)] = world.sql("SELECT extract(epoch FROM next_at - clock_timestamp())::float8 FROM brain.deliveries")
    return found


async def test_while_nobody_can_hold_a_connection_no_time_counts_against_a_channel(world, own_redis):
    channel = await made(world)
    await something_to_tell(world, channel)
    async with asking(world, own_redis) as port:
        sender, pauses = sending(world, port), []
        for _ in range(12):
            await world.send(sender)
            pauses.append(round(pause(world)))
            world.away(f"{pause(world)} s")  # it goes by
        world.away("10 days")
        await world.send(sender)
    assert (pauses[0], max(pauses), pauses[-1]) == (5, 60, 60)
    [(status, attempts, error)] = world.sql("SELECT status, attempts, error FROM brain.deliveries")
    assert (status, attempts) == ("waiting", 0) and "nobody holds a connection" in error
    assert (await world.channels.found(channel.id)).active


async def test_what_could_not_be_tried_is_tried_at_once_when_it_can_be_and_only_the_time_before_does_not_count(
    world, own_redis
):
    channel = await made(world)
    await something_to_tell(world, channel)
    async with asking_aloud(world, own_redis) as port:
        sender = sending(world, port)
        await world.send(sender)
        world.away("2 days")
        await world.send(sender)
        world.away("1 minute")
        await world.send(sender)
        assert world.sql("SELECT attempts FROM brain.deliveries") == [(0,)]
        async with holding(own_redis, channel, ill):
            await world.channels.try_now(channel)
            await world.send(sender)
            assert world.sql("SELECT attempts, error FROM brain.deliveries") == [(1, "the service is ill")]
            assert 4 < pause(world) <= 5, "it is the first attempt"
            assert _counted(world) < 60
            await world.channels.try_now(channel)
            await world.send(sender)
            assert 299 < pause(world) <= 300
            world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '1 day'")
            await world.channels.try_now(channel)
            await world.send(sender)
    assert world.statuses() == ["failed"], "a day in which it was tried ends it"
    assert not (await world.channels.found(channel.id)).active


def _counted(world):
    [(seconds,)] = world.sql(
        "SELECT extract(epoch FROM clock_timestamp() - first_tried_at - away)::float8 FROM brain.deliveries"
    )
    return seconds


async def test_a_holder_that_is_slow_counts_as_an_attempt_and_one_that_is_gone_does_not(world, own_redis, monkeypatch):
    monkeypatch.setattr("adapters.channels.service.SEND_WITHIN", 1.0)
    channel = await made(world)
    await something_to_tell(world, channel)
    async with asking_aloud(world, own_redis) as port:
        sender = sending(world, port)
        async with holding(own_redis, channel, asyncio.Event().wait):
            await world.send(sender)
        [(attempts, error, ours)] = world.sql("SELECT attempts, error, ours_since FROM brain.deliveries")
        assert (attempts, ours) == (1, None) and "did not answer in time" in error
        redis = open_redis(own_redis)
        dead = RedisLineLeases(redis, "dead", 60)
        assert await dead.take(channel) is not None
        await world.channels.try_now(channel)
        await world.send(sender)
        await redis.aclose()
    [(attempts, error, ours)] = world.sql("SELECT attempts, error, ours_since FROM brain.deliveries")
    assert attempts == 1 and ours is not None and "nobody holds a connection" in error
