"""What channels post: let in by their signature alone; one inbound message is one turn, whatever breaks in between."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import httpx
import pytest
from starlette.requests import Request

from adapters.channels.receiving import Receiving
from adapters.outgoing import Outgoing
from adapters.standard_webhooks import WINDOW, sign, verify
from domain.channels import Inbound
from domain.errors import Unavailable
from domain.ids import new_id
from serve_app.ingress import channel_inbound, unsigned
from serve_app.ingress.channel_inbound import LONGEST
from serve_app.ingress.parts import IngressSettings
from serve_app.outward import open_outward
from storage import channels
from storage.attempts import Attempts
from storage.bootstrap import bootstrap
from storage.redis import open_redis
from tests.conftest import make_database
from tests.doubles.receiver import ALLOWED, receiving
from tests.storage.delivery_world import DeliveryWorld, plain
from tests.unit.ingress_world import KEY, MASTER, world


@pytest.fixture(scope="module")
def url(postgres_folder):
    return make_database(postgres_folder)


class Shop:
    """A channel, both sides of it."""

    def __init__(self, made, deliveries, entry):
        self.world, self.deliveries, self.id = made, deliveries, entry["id"]
        self.secret = plain(entry["secret"])
        deliveries.receiver.secrets.append(self.secret)

    async def post(self, body=None, at=None, secret=None, raw=None, headers=None, **fields):
        given = {"id": new_id("evt"), "type": "message", "thread": "t-1", "user": "ann", **fields}
        if given["type"] == "message":
            given.setdefault("text", "where is my parcel")
        content = raw if raw is not None else json.dumps(body or given).encode()
        if headers is None:
            headers = sign([secret or self.secret], "wh-1", int(time.time() if at is None else at), content)
        path = f"{self.world.url}/api/v1/channels/{self.id}/inbound"
        async with self.world.http.__class__() as http:  # without the client's key
            return await http.post(path, content=content, headers=headers)

    async def settle(self):
        """All turns have ended, and all is delivered."""
        while running := [one for one in self.world.hosts.running.values() if not one.done()]:
            await asyncio.gather(*running)
        await self.deliveries.fan_out()
        await self.deliveries.send()

    def heard(self, type="message"):
        return [one.body for one in self.deliveries.receiver.heard if one.body["type"] == type]


@pytest.fixture
async def given(url):
    tenant = bootstrap(url, KEY)[0]
    async with (
        receiving() as receiver,
        Outgoing(ALLOWED, wait=10) as outgoing,
        world(url, tenant, IngressSettings(poll=0.01)) as made,
    ):
        made.parts.outward = await open_outward(made.pool, MASTER, ALLOWED, made.hosts)
        deliveries = DeliveryWorld(url, made.pool, outgoing, receiver)
        deliveries.empty()

        async def shop(**settings):
            body = {"kind": "webhook", "name": "shop", "settings": {"url": receiver.url, **settings}}
            answer = await made.http.post("/api/v1/channels", json=body)
            assert answer.status_code == 201, answer.text
            return Shop(made, deliveries, answer.json())

        made.shop = shop
        yield made
        await made.parts.outward.close()


def turns(shop):
    return shop.deliveries.sql("SELECT count(*) FROM brain.turns t JOIN brain.channel_messages m ON m.turn_id = t.id")


async def test_a_message_is_answered_in_its_thread(given):
    shop = await given.shop()
    answer = await shop.post(id="m-1", metadata={"lang": "en"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["object"] == "channel.received" and told["duplicate"] is False
    await shop.settle()
    [receipt] = shop.heard("receipt")
    assert (receipt["in_reply_to"], receipt["message_id"], receipt["thread"]) == ("m-1", told["message_id"], "t-1")
    [reply] = shop.heard()
    assert reply["message"]["content"] == "Hello" and reply["message"]["role"] == "assistant"
    assert (reply["thread"], reply["user"], reply["channel_id"]) == ("t-1", "ann", shop.id)
    assert reply["conversation_id"] == told["conversation_id"]
    found = (await given.http.get(f"/api/v1/conversations/{told['conversation_id']}")).json()
    assert found["user_id"] == f"{shop.id}:ann"
    message = (await given.http.get(f"/api/v1/messages/{told['message_id']}")).json()
    assert message["metadata"] == {
        "lang": "en",
        "channel_id": shop.id,
        "channel_message_id": "m-1",
        "channel_user": "ann",
    }
    bound = (await given.http.get(f"/api/v1/conversations/{told['conversation_id']}/channels")).json()
    assert [(one["channel_id"], one["thread"]) for one in bound["data"]] == [(shop.id, "t-1")]


async def test_the_same_message_many_times_at_once_is_one_turn(given):
    shop = await given.shop()
    answers = await asyncio.gather(*(shop.post(id="m-1") for _ in range(8)))
    assert {one.status_code for one in answers} == {200}
    assert len({one.json()["turn_id"] for one in answers}) == 1
    assert [one.json()["duplicate"] for one in answers].count(False) == 1
    await shop.settle()
    assert (await shop.post(id="m-1")).json()["duplicate"] is True
    assert turns(shop) == [(1,)]
    assert len(shop.heard()) == 1


async def test_a_message_whose_turn_was_not_reached_is_one_turn_when_it_comes_again(given):
    shop = await given.shop()
    given.hosts.refusal = Unavailable("no host")
    answer = await shop.post(id="m-1")
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert turns(shop) == [(0,)]
    given.hosts.refusal = None
    answer = await shop.post(id="m-1")
    assert answer.status_code == 200
    await shop.settle()
    assert turns(shop) == [(1,)] and len(shop.heard()) == 1


async def test_a_message_whose_answer_got_lost_stays_one_turn_also_when_its_key_is_forgotten(given):
    shop = await given.shop()
    first = (await shop.post(id="m-1")).json()
    await shop.settle()
    shop.deliveries.sql("DELETE FROM brain.idempotency")
    again = (await shop.post(id="m-1")).json()
    assert again == {**first, "duplicate": True}
    assert turns(shop) == [(1,)]


async def test_threads_keep_their_order_and_are_conversations_of_their_own(given):
    shop = await given.shop()
    for n in range(4):
        for thread in ("t-1", "t-2"):
            answer = await shop.post(id=f"{thread}/{n}", thread=thread, text=f"{thread} {n}")
            assert answer.status_code == 200, answer.text
    await shop.settle()
    kept = shop.deliveries.sql(
        "SELECT b.thread, m.content FROM brain.channel_bindings b JOIN brain.messages m"
        " ON m.conversation_id = b.conversation_id WHERE m.role = 'user' ORDER BY b.thread, m.seq"
    )
    assert kept == [(thread, f"{thread} {n}") for thread in ("t-1", "t-2") for n in range(4)]
    for thread in ("t-1", "t-2"):
        seqs = [one["message"]["seq"] for one in shop.heard() if one["thread"] == thread]
        assert len(seqs) == 4 and seqs == sorted(seqs)


async def test_a_conversation_on_several_channels_shows_everything_on_all_of_them(given):
    one, two = await given.shop(users="shared"), await given.shop(users="shared")
    told = (await one.post(id="m-1", text="from one")).json()
    conversation = told["conversation_id"]
    await one.settle()
    body = {"channel_id": two.id, "thread": "other"}
    path = f"/api/v1/conversations/{conversation}/channels"
    assert (await given.http.post(path, json=body)).status_code == 201
    assert (await given.http.post(path, json=body)).status_code == 200
    assert (await given.http.post(path, json={**body, "thread": "a third"})).status_code == 409
    assert (await two.post(id="m-1", thread="other", text="from two")).json()["conversation_id"] == conversation
    await one.settle()
    assert (await given.send(conversation, "over the API")).status_code == 200
    await one.settle()
    seen = {
        shop.id: [
            (told["message"]["role"], told["message"]["content"])
            for told in shop.heard()
            if told["channel_id"] == shop.id
        ]
        for shop in (one, two)
    }
    later = [("assistant", "Hello"), ("user", "over the API"), ("assistant", "Hello")]
    assert seen[one.id] == [("assistant", "Hello"), ("user", "from two"), *later]
    assert seen[two.id] == later
    assert (await given.http.delete(f"{path}/{two.id}")).status_code == 200
    assert (await given.send(conversation, "again")).status_code == 200
    await one.settle()
    assert [told["channel_id"] for told in one.heard()[-2:]] == [one.id, one.id]


async def test_after_its_end_a_thread_goes_on_in_another_conversation(given):
    shop = await given.shop()
    first = (await shop.post()).json()["conversation_id"]
    await shop.settle()
    assert (await given.http.post(f"/api/v1/conversations/{first}/end")).status_code == 200
    second = (await shop.post()).json()["conversation_id"]
    assert second != first
    await shop.settle()
    assert [one["conversation_id"] for one in shop.heard("ended")] == [first], "also what was told late"
    assert [one["conversation_id"] for one in shop.heard()] == [first, second]
    assert (await shop.post()).json()["conversation_id"] == second


async def test_a_tenant_that_may_have_no_more_conversations_begins_none_by_a_channel(given):
    shop = await given.shop()
    first = (await shop.post()).json()["conversation_id"]
    shop.deliveries.sql(
        "UPDATE brain.tenants SET settings = jsonb_set(settings, '{quotas}', '{\"max_conversations\": 1}')"
    )
    shop.deliveries.sql("DELETE FROM brain.conversations WHERE id <> %s", first)
    refused = await shop.post(thread="another")
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "quota_exceeded"
    assert (await shop.post()).json()["conversation_id"] == first
    shop.deliveries.sql("UPDATE brain.tenants SET settings = settings - 'quotas'")


async def test_who_did_not_sign_is_not_let_in(given):
    shop = await given.shop()
    refused = [
        await shop.post(secret=b"x" * 32),
        await shop.post(at=time.time() - WINDOW - 5),
        await shop.post(at=time.time() + WINDOW + 5),
        await shop.post(headers={}),
        await shop.post(headers={"authorization": f"Bearer {KEY}"}),
    ]
    good = sign([shop.secret], "wh-1", int(time.time()), b"{}")
    refused.append(await shop.post(raw=b'{"a": 1}', headers=good))
    shop.id = new_id("chn")
    refused.append(await shop.post())
    shop.id = "chn_nothing"
    refused.append(await shop.post())
    assert [one.status_code for one in refused] == [401] * 8
    assert {one.json()["error"]["code"] for one in refused} == {"invalid_signature"}
    assert turns(shop) == [(0,)] and given.hosts.sent == []


async def test_of_one_address_few_unsigned_requests_are_looked_at(given, monkeypatch):
    monkeypatch.setattr(unsigned, "BY_BOTH", 3)
    shop, other = await given.shop(), await given.shop()

    def at(address, secret):
        content = json.dumps({"id": new_id("evt"), "type": "typing", "thread": "t-1"}).encode()
        signed = sign([secret], "wh-1", int(time.time()), content)
        return {"raw": content, "headers": {**signed, "x-forwarded-for": address}}

    wrong = b"x" * 32
    for n in range(3):  # an IPv6 address counts with its /64
        assert (await shop.post(**at(f"2001:db8:1:2::{n}", wrong))).status_code == 401
    answer = await shop.post(**at("2001:db8:1:2:3:4:5:6", wrong))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_attempts")
    assert 1 <= int(answer.headers["retry-after"]) <= unsigned.WINDOW + 1
    refused = await shop.post(**at("2001:db8:1:2::9", shop.secret))
    assert refused.status_code == 429, "none of them is looked at, so the right secret is no help to whoever guesses"
    assert (await shop.post(**at("2001:db8:1:3::1", shop.secret))).status_code == 200
    assert (await other.post(**at("2001:db8:1:2::1", other.secret))).status_code == 200


async def test_who_guesses_at_channels_costs_no_look_at_the_database(given, monkeypatch):
    monkeypatch.setattr(unsigned, "BY_ADDRESS", 3)
    shop, looks, found = await given.shop(), [], type(given.parts.outward.bindings).found

    async def counted(bindings, channel):
        looks.append(channel)
        return await found(bindings, channel)

    monkeypatch.setattr(type(given.parts.outward.bindings), "found", counted)
    assert (await shop.post()).status_code == 200
    mine, statuses = shop.id, []
    for _ in range(8):
        shop.id = new_id("chn")
        statuses.append((await shop.post()).status_code)
    assert statuses == [401] * 3 + [429] * 5 and len(looks) == 1 + 4
    shop.id = mine
    assert (await shop.post()).status_code == 200, "a channel that exists goes on"


async def test_of_requests_to_what_is_no_id_few_are_looked_at(given, monkeypatch):
    monkeypatch.setattr(unsigned, "BY_BOTH", 3)
    shop, looks = await given.shop(), []
    monkeypatch.setattr(channel_inbound, "verify", lambda *request: looks.append(1) or verify(*request))
    mine, statuses = shop.id, []
    for n in range(12):
        shop.id = f"chn_nothing-{n}"
        statuses.append((await shop.post()).status_code)
    assert statuses == [401] * 3 + [429] * 9 and len(looks) == 3 + 1
    shop.id = mine
    assert (await shop.post()).status_code == 200


async def test_what_is_no_id_counts_for_its_address(given, monkeypatch):
    monkeypatch.setattr(unsigned, "BY_ADDRESS", 3)
    shop = await given.shop()
    for n in range(3):
        shop.id = f"chn_nothing-{n}"
        assert (await shop.post()).status_code == 401
    shop.id = new_id("chn")
    assert [(await shop.post()).status_code for _ in range(2)] == [429, 429]


@pytest.mark.parametrize("told", [True, False])
async def test_of_bodies_that_are_too_large_few_are_read(given, monkeypatch, told):
    monkeypatch.setattr(unsigned, "BY_BOTH", 3)
    shop, read = await given.shop(), []
    stream = Request.stream

    async def counted(request):
        async for part in stream(request):
            read.append(len(part))
            yield part

    async def in_parts():
        for _ in range(8):
            yield b" " * (LONGEST // 4)

    monkeypatch.setattr(Request, "stream", counted)
    statuses = []
    for _ in range(6):
        raw = b" " * (LONGEST + 1) if told else in_parts()
        statuses.append((await shop.post(raw=raw, headers={})).status_code)
    assert statuses == [413] * 3 + [429] * 3
    # of each that was looked at, as much as shows that it is too large: the first of them that is refused is the fourth
    assert (sum(read) == 0) if told else (4 * LONGEST < sum(read) <= 4 * (LONGEST + 256 * 1024))


async def test_a_body_that_is_left_off_counts(given, monkeypatch):
    monkeypatch.setattr(unsigned, "BY_BOTH", 1)
    shop, host = await given.shop(), httpx.URL(given.url)
    head = f"POST /api/v1/channels/{shop.id}/inbound HTTP/1.1\r\nhost: {host.host}\r\ncontent-length: 1000\r\n\r\n"
    for _ in range(2):
        _, writer = await asyncio.open_connection(host.host, host.port)
        writer.write(head.encode() + b"{")
        await writer.drain()
        writer.close()
    async with asyncio.timeout(10):
        while (await shop.post()).status_code != 429:
            await asyncio.sleep(0.01)


async def test_a_channel_behind_an_address_that_used_up_its_own_goes_on_at_every_replica(
    given, url, redis_url, monkeypatch
):
    monkeypatch.setattr(unsigned, "BY_ADDRESS", 3)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_url))
        replicas = [given, await stack.enter_async_context(world(url, given.tenant, IngressSettings(poll=0.01)))]
        for one in replicas:
            outward = await open_outward(one.pool, MASTER, ALLOWED, one.hosts, attempts=Attempts(redis))
            monkeypatch.setattr(one.parts, "outward", outward)
            stack.push_async_callback(outward.close)
        shop, secret = await given.shop(), b"x" * 32
        mine = shop.id

        async def posted(to, channel, **fields):
            shop.world, shop.id = to, channel
            return (await shop.post(type="typing", **fields)).status_code

        for _ in range(3):
            assert await posted(replicas[0], new_id("chn"), secret=secret) == 401
        for one in replicas:  # neither has seen the channel sign
            assert [await posted(one, new_id("chn"), secret=secret) for _ in range(2)] == [429, 429]
            assert await posted(one, mine) == 200
            assert await posted(one, mine, secret=secret) == 429, "not told from one that does not exist"
            assert await posted(one, mine) == 200


async def test_channels_that_exist_are_the_active_ones_of_a_kind(given, monkeypatch):
    one, two = await given.shop(), await given.shop()
    bindings = given.parts.outward.bindings
    assert {one.id, two.id} <= set(await bindings.ids("webhook"))
    await given.http.patch(f"/api/v1/channels/{one.id}", json={"status": "disabled"})
    found = await bindings.ids("webhook")
    assert two.id in found and one.id not in found and found == sorted(found)
    assert await bindings.ids("service") == []
    monkeypatch.setattr(channels, "LISTED", 1)
    assert await bindings.ids("webhook") == found[:1]


async def test_another_channels_secret_does_not_count(given):
    one, two = await given.shop(), await given.shop()
    assert (await one.post(secret=two.secret)).status_code == 401


async def test_a_disabled_channel_is_taken_nothing_from_and_sent_nothing(given):
    shop = await given.shop()
    await shop.post()
    await shop.settle()
    assert (await given.http.patch(f"/api/v1/channels/{shop.id}", json={"status": "disabled"})).status_code == 200
    assert (await shop.post()).status_code == 409
    assert (await given.http.patch(f"/api/v1/channels/{shop.id}", json={"status": "active"})).status_code == 200
    assert (await shop.post()).status_code == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 32_001}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"thread": ""}, "thread"),
        ({"type": "poem"}, "type"),
        ({"type": "receipt", "message": "msg_x"}, None),
        ({"surprise": 1}, "surprise"),
        ({"id": "x" * 256}, "id"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_its_field(given, fields, named):
    shop = await given.shop()
    answer = await shop.post(**fields)
    assert answer.status_code == 422 and answer.json()["error"]["param"] == named, answer.text


async def test_a_body_too_large_is_refused_before_anything_is_read_of_it(given):
    shop = await given.shop()
    assert (await shop.post(raw=b" " * (LONGEST + 1))).status_code == 413


async def test_receipts_are_kept_with_the_delivery_and_only_go_forward(given):
    shop = await given.shop()
    await shop.post()
    await shop.settle()
    [reply] = shop.heard()

    async def now():
        log = (await given.http.get(f"/api/v1/channels/{shop.id}/deliveries")).json()["data"]
        return [one["receipt"] for one in log if one["type"] == "message"]

    assert await now() == ["sent"]
    for status, duplicate, after in (
        ("delivered", False, "delivered"),
        ("delivered", True, "delivered"),
        ("read", False, "read"),
        ("failed", True, "read"),
    ):
        answer = await shop.post(type="receipt", message=reply["message"]["id"], status=status)
        assert answer.json()["duplicate"] is duplicate, status
        assert await now() == [after]
    assert (await shop.post(type="receipt", message=new_id("msg"), status="read")).json()["duplicate"] is True


async def test_that_somebody_writes_is_told_to_the_other_channels(given):
    one, two = await given.shop(), await given.shop()
    conversation = (await one.post()).json()["conversation_id"]
    await one.settle()
    body = {"channel_id": two.id, "thread": "other"}
    await given.http.post(f"/api/v1/conversations/{conversation}/channels", json=body)
    assert (await one.post(type="typing", typing=True)).status_code == 200
    await one.deliveries.receiver.until(lambda: bool(one.heard("typing")))
    [typing] = one.heard("typing")
    assert (typing["channel_id"], typing["thread"], typing["typing"]) == (two.id, "other", True)
    assert (await one.post(type="typing", thread="unknown")).json()["conversation_id"] is None


async def test_a_failed_turn_is_told(given):
    shop = await given.shop()
    given.hosts.script.error = {"message": "down", "type": "provider_error", "code": "provider_error"}
    given.hosts.script.deltas = ()
    await shop.post(id="m-1")
    await shop.settle()
    [told] = shop.heard("error")
    assert told["turn_id"] and told["thread"] == "t-1"


async def test_one_that_stops_between_its_ids_and_its_turn_is_taken_up(given, url):
    """As after the end of a process there: ids stand, no turn does."""
    shop = await given.shop()
    outward = given.parts.outward
    channel = await outward.bindings.found(shop.id)
    arrived = await outward.bindings.arrive(channel, Inbound("m-1", "message", "t-1", "ann", "hello"))
    assert not arrived.known and not arrived.accepted
    other = Receiving(outward.bindings, given.hosts, {})
    received = await other.receive(channel, Inbound("m-1", "message", "t-1", "ann", "hello"))
    assert (received.turn, received.message) == (arrived.turn, arrived.message)
    await shop.settle()
    assert turns(shop) == [(1,)]
