"""Routes of webhooks and channels: what is shown and what never is, what is refused, and what an operator reseals."""

import json

import psycopg
import pytest

from adapters.outgoing import Outgoing
from domain.ids import new_id
from serve_app.ingress.parts import IngressSettings
from serve_app.outward import open_outward
from storage.bootstrap import bootstrap
from storage.resealing import reseal
from storage.sealing import MasterKeys
from tests.conftest import make_database
from tests.doubles.receiver import ALLOWED, receiving
from tests.storage.delivery_world import DeliveryWorld, plain
from tests.unit.ingress_world import KEY, MASTER, MASTER_TEXT, world
from tests.unit.test_ingress_models import make_key


@pytest.fixture(scope="module")
def url(postgres_folder):
    return make_database(postgres_folder)


@pytest.fixture
async def given(url):
    tenant = bootstrap(url, KEY)[0]
    async with (
        receiving() as receiver,
        Outgoing(ALLOWED, wait=10) as outgoing,
        world(url, tenant, IngressSettings(poll=0.01)) as made,
    ):
        made.parts.outward = await open_outward(made.pool, MASTER, ALLOWED, made.hosts)
        made.deliveries = DeliveryWorld(url, made.pool, outgoing, receiver)
        made.deliveries.empty()
        yield made
        await made.parts.outward.close()


async def make(given, headers=None, **fields):
    body = {"url": given.deliveries.receiver.url, "events": ["turn.*"], **fields}
    answer = await given.http.post("/api/v1/webhooks", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    given.deliveries.receiver.secrets.append(plain(answer.json()["secret"]))
    return answer


async def test_a_webhook_hears_of_a_turn_and_its_secret_is_shown_once(given):
    answer = await make(given, include_content=True, description="ours")
    made = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert made["object"] == "webhook" and made["status"] == "active" and len(plain(made["secret"])) == 32
    shown = (await given.http.get(f"/api/v1/webhooks/{made['id']}")).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    listed = (await given.http.get("/api/v1/webhooks")).json()
    assert listed["object"] == "list" and listed["data"] == [shown]
    conversation = await given.conversation()
    assert (await given.send(conversation)).status_code == 200
    await given.deliveries.fan_out()
    await given.deliveries.send()
    [heard] = given.deliveries.receiver.heard
    assert heard.body["type"] == "turn.completed" and heard.body["data"]["message"]["content"] == "Hello"
    [row] = given.deliveries.sql("SELECT secret::text FROM brain.webhooks")
    assert made["secret"].removeprefix("whsec_") not in row[0]
    assert made["secret"] not in str(given.deliveries.sql("SELECT * FROM brain.audit"))


async def test_a_repeated_request_makes_one_webhook_and_shows_the_same_secret(given):
    key = {"idempotency-key": new_id("req")}
    first, second = await make(given, headers=key), await make(given, headers=key)
    assert second.json() == first.json() and second.headers["idempotent-replayed"] == "true"
    other = {"url": given.deliveries.receiver.url, "events": ["*"]}
    refused = await given.http.post("/api/v1/webhooks", json=other, headers=key)
    assert refused.status_code == 422 and refused.json()["error"]["code"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "http://example.com"}, "url"),
        ({"url": "https://10.0.0.1/x"}, "url"),
        ({"url": "https://user:word@example.com"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": ""}, "url"),
        ({"events": []}, "events"),
        ({"events": ["turn.", "*"]}, "events.0"),
        ({"events": "turn.*"}, "events"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_what_is_wrong_is_named(given, fields, named):
    body = {"url": "https://example.com/hook", "events": ["*"], **fields}
    answer = await given.http.post("/api/v1/webhooks", json=body)
    assert answer.status_code == 422 and answer.json()["error"]["param"] == named, answer.text


async def test_changes_disabling_and_enabling(given):
    webhook = (await make(given)).json()["id"]
    path = f"/api/v1/webhooks/{webhook}"
    changed = (await given.http.patch(path, json={"events": ["*"], "description": None})).json()
    assert changed["events"] == ["*"]
    assert (await given.http.patch(path, json={"url": "http://example.com"})).status_code == 422
    assert (await given.http.patch(path, json={"events": None})).status_code == 422
    assert (await given.http.patch(path, json={"status": "disabled"})).json()["status"] == "disabled"
    assert (await given.http.post(f"{path}/test")).status_code == 409
    assert (await given.http.patch(path, json={"status": "active"})).json()["status"] == "active"
    assert (await given.http.post(f"{path}/test")).status_code == 202
    assert (await given.http.delete(path)).json() == {"id": webhook, "object": "webhook", "deleted": True}
    assert (await given.http.get(path)).status_code == 404
    actions = [row[0] for row in given.deliveries.sql("SELECT action FROM brain.audit WHERE subject = %s", webhook)]
    assert actions == [f"webhook.{one}" for one in ("create", "change", "disable", "enable", "delete")]


async def test_a_trial_is_in_the_log_and_is_sent_again_on_demand(given):
    webhook = (await make(given)).json()["id"]
    path = f"/api/v1/webhooks/{webhook}"
    tried = (await given.http.post(f"{path}/test")).json()
    assert tried["status"] == "waiting" and tried["type"] == "webhook.test"
    given.deliveries.receiver.text = "thank you"
    await given.deliveries.send()
    entry = (await given.http.get(f"{path}/deliveries/{tried['id']}")).json()
    assert (entry["status"], entry["http_status"], entry["attempts"]) == ("delivered", 204, 1)
    again = (await given.http.post(f"{path}/deliveries/{tried['id']}/redeliver")).json()
    assert again["id"] != tried["id"] and again["event_id"] == tried["event_id"]
    await given.deliveries.send()
    assert given.deliveries.receiver.ids == [tried["event_id"]] * 2
    listed = (await given.http.get(f"{path}/deliveries", params={"limit": 1})).json()
    assert [one["id"] for one in listed["data"]] == [again["id"]] and listed["has_more"]
    older = (await given.http.get(f"{path}/deliveries", params={"after": again["id"]})).json()
    assert [one["id"] for one in older["data"]] == [tried["id"]]
    waiting = (await given.http.get(f"{path}/deliveries", params={"status": "waiting"})).json()
    assert waiting["data"] == []
    assert (await given.http.post(f"{path}/deliveries/{new_id('dlv')}/redeliver")).status_code == 404


async def test_a_rotated_secret_signs_beside_the_old_one(given):
    made = (await make(given)).json()
    path, key = f"/api/v1/webhooks/{made['id']}", {"idempotency-key": new_id("req")}
    fresh = (await given.http.post(f"{path}/rotate-secret", headers=key)).json()["secret"]
    again = await given.http.post(f"{path}/rotate-secret", headers=key)
    assert again.json()["secret"] == fresh != made["secret"] and again.headers["idempotent-replayed"] == "true"
    for secret in (fresh, made["secret"]):
        given.deliveries.receiver.secrets = [plain(secret)]
        await given.http.post(f"{path}/test")
        await given.deliveries.send()
    assert len(given.deliveries.receiver.heard) == 2 and given.deliveries.receiver.unsigned == 0


async def test_secrets_open_under_a_new_master_key_once_they_are_sealed_anew(given, url):
    made = (await make(given)).json()
    body = {"kind": "webhook", "name": "shop", "settings": {"url": given.deliveries.receiver.url}}
    assert (await given.http.post("/api/v1/channels", json=body)).status_code == 201
    await given.http.post(f"/api/v1/webhooks/{made['id']}/rotate-secret")
    fresh = MasterKeys.parse((b"n" * 32).hex() + "," + MASTER_TEXT)
    found = reseal(url, fresh)
    assert found.lost == [] and found.sealed >= 3
    again = reseal(url, fresh)
    assert again.sealed == 0 and again.already == found.sealed + found.already
    reseal(url, MasterKeys.parse(MASTER_TEXT + "," + (b"n" * 32).hex()))


async def test_a_channel_is_set_up_changed_and_told_how_it_is(given):
    receiver = given.deliveries.receiver
    body = {"kind": "webhook", "name": "shop", "settings": {"url": receiver.url}}
    made = (await given.http.post("/api/v1/channels", json=body)).json()
    assert made["settings"] == {
        "url": receiver.url,
        "model": "auto",
        "users": "own",
        "typing": True,
        "receipts": True,
    }
    path = f"/api/v1/channels/{made['id']}"
    changed = (await given.http.patch(path, json={"name": "till", "settings": {"typing": False}})).json()
    assert changed["name"] == "till" and changed["settings"] == {**made["settings"], "typing": False}
    assert "secret" not in changed
    status = (await given.http.get(f"{path}/status")).json()
    assert (status["status"], status["connected"], status["conversations_waiting"]) == ("active", None, 0)
    for wrong, named in (
        ({"settings": {"url": "http://example.com"}}, "settings.url"),
        ({"settings": {"colour": "red"}}, "settings.colour"),
        ({"settings": {"users": "all"}}, "settings.users"),
        ({"name": None}, "name"),
    ):
        answer = await given.http.patch(path, json=wrong)
        assert answer.status_code == 422 and answer.json()["error"]["param"] == named, answer.text
    other = await given.http.post("/api/v1/channels", json={"kind": "pigeon", "name": "w"})
    assert other.status_code == 422 and other.json()["error"]["param"] == "kind"
    assert (await given.http.delete(path)).json()["deleted"] is True
    assert (await given.http.get(path)).status_code == 404


async def test_a_deleted_message_goes_out_to_nobody_and_is_told_as_deleted(given):
    await make(given, include_content=True, events=["message.*"])
    conversation = await given.conversation()
    sent = (await given.send(conversation, "a secret word")).json()
    message = sent["user_message"]["id"]
    await given.deliveries.fan_out()
    assert (await given.http.delete(f"/api/v1/messages/{message}")).status_code == 200
    await given.deliveries.fan_out()
    await given.deliveries.send()
    heard = [one.body for one in given.deliveries.receiver.heard]
    assert heard[0]["type"] == "message.received" and heard[0]["data"]["message"] is None
    assert heard[-1]["type"] == "message.deleted"
    assert "a secret word" not in json.dumps(heard)


async def test_who_may_not_read_messages_cannot_have_them_sent_elsewhere(given, url):
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'outward', %s)",
            [given.tenant, ["webhooks:manage", "channels:manage"]],
        )
    narrow, address = make_key(url, given.tenant, "outward"), given.deliveries.receiver.url
    plainly = {"url": address, "events": ["*"]}
    told = {**plainly, "include_content": True}
    assert (await given.http.post("/api/v1/webhooks", json=told, headers=narrow)).status_code == 403
    made = await given.http.post("/api/v1/webhooks", json=plainly, headers=narrow)
    assert made.status_code == 201
    path = f"/api/v1/webhooks/{made.json()['id']}"
    assert (await given.http.patch(path, json={"include_content": True}, headers=narrow)).status_code == 403
    path = f"/api/v1/webhooks/{(await make(given, include_content=True)).json()['id']}"
    assert (await given.http.patch(path, json={"url": address}, headers=narrow)).status_code == 403
    assert (await given.http.patch(path, json={"include_content": False}, headers=narrow)).status_code == 200
    channel = {"kind": "webhook", "name": "ours", "settings": {"url": address}}
    assert (await given.http.post("/api/v1/channels", json=channel, headers=narrow)).status_code == 403
    known = (await given.http.post("/api/v1/channels", json=channel)).json()["id"]
    body = {"settings": {"url": address}}
    assert (await given.http.patch(f"/api/v1/channels/{known}", json=body, headers=narrow)).status_code == 403
    path, body = f"/api/v1/conversations/{await given.conversation()}/channels", {"channel_id": known, "thread": "t"}
    assert (await given.http.post(path, json=body, headers=narrow)).status_code == 403
    assert (await given.http.post(path, json=body)).status_code == 201
