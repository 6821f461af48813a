"""A channel of the kind `service` on a running Brain: a reference server on the other side, and a line that breaks."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.doubles.messaging_service import MessagingService, messaging
from tests.e2e.brain import Brain
from tests.storage.delivery_world import plain

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


@pytest.fixture
async def api(brain: Brain) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {brain.key}"}
    async with httpx.AsyncClient(base_url=f"{brain.url}/api/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
async def service() -> AsyncIterator[MessagingService]:
    async with messaging() as found:
        yield found


class Channel:
    """One of the API's, whose other side is the reference server."""

    def __init__(self, api: httpx.AsyncClient, service: MessagingService, id: str) -> None:
        self.api, self.service, self.id = api, service, id

    @classmethod
    async def made(cls, api: httpx.AsyncClient, service: MessagingService) -> "Channel":
        answer = await api.post(
            "/channels", json={"kind": "service", "name": "messengers", "settings": {"url": service.url}}
        )
        assert answer.status_code == 201, answer.text
        service.secrets.append(plain(answer.json()["secret"]))
        found = cls(api, service, answer.json()["id"])
        await found.up()
        return found

    async def up(self, beyond: int = 0) -> None:
        await self.service.until(lambda: len(self.service.lines) > beyond and self.id in self.service.live, 60)

    async def tell(self, id: str, text: str) -> Json:
        """A message of ann's in the thread `t-1`, and the answer to it."""
        before = len(self.service.acks[id])
        await self.service.tell(self.id, id, "t-1", text)
        await self.service.until(lambda: len(self.service.acks[id]) > before, 60)
        return self.service.acks[id][-1]

    def heard(self, type: str, turn: str) -> list[Json]:
        return [one for one in self.service.types(type) if one["turn_id"] == turn]

    async def reply(self, turn: str) -> Json:
        """What the assistant said in a turn, as the service was told."""

        def found() -> list[Json]:
            return [one for one in self.heard("message", turn) if one["message"]["role"] == "assistant"]

        await self.service.until(found, 60)
        [one] = found()
        return one

    async def messages(self, conversation: str) -> list[Json]:
        return list((await self.api.get(f"/conversations/{conversation}/messages")).json()["data"])

    async def removed(self) -> None:
        assert (await self.api.delete(f"/channels/{self.id}")).status_code == 200
        await self.service.until(lambda: self.id not in self.service.live, 60)


async def test_a_message_of_the_service_is_one_turn_and_its_answer_goes_out(
    api: httpx.AsyncClient, service: MessagingService
) -> None:
    channel = await Channel.made(api, service)
    status = (await api.get(f"/channels/{channel.id}/status")).json()
    assert status["connected"] is True and status["connected_since"] and service.unsigned == 0
    ack = await channel.tell("m-1", "where is my parcel")
    assert (ack["frame"], ack["duplicate"]) == ("ack", False)
    reply = await channel.reply(ack["turn_id"])
    assert (reply["thread"], reply["user"], reply["conversation_id"]) == ("t-1", "ann", ack["conversation_id"])
    [receipt] = channel.heard("receipt", ack["turn_id"])
    assert (receipt["in_reply_to"], receipt["message_id"]) == ("m-1", ack["message_id"])
    assert receipt["status"] == "delivered" and service.heard.index(receipt) < service.heard.index(reply)
    asked, answered = await channel.messages(ack["conversation_id"])
    assert (asked["id"], asked["role"], asked["content"]) == (ack["message_id"], "user", "where is my parcel")
    assert answered == reply["message"], "the service was told what the API shows"
    assert answered["role"] == "assistant" and answered["status"] == "completed" and answered["content"]
    read = {"frame": "tell", "id": "r-1", "type": "receipt", "thread": "t-1", "message": answered["id"]}
    await service.live[channel.id].say({**read, "status": "read"})
    await service.acked("r-1")
    log = (await api.get(f"/channels/{channel.id}/deliveries")).json()["data"]
    [told] = [one for one in log if one["message_id"] == answered["id"]]
    assert (told["status"], told["receipt"]) == ("delivered", "read")
    await channel.removed()


async def test_over_broken_lines_a_message_stays_one_turn_and_nothing_is_lost(
    api: httpx.AsyncClient, service: MessagingService
) -> None:
    channel = await Channel.made(api, service)
    first = await channel.tell("m-1", "one")
    await channel.reply(first["turn_id"])
    line = service.live[channel.id]
    line.cut()
    await channel.up(beyond=1)
    assert service.lines[1].hello["epoch"] >= line.hello["epoch"]
    again = await channel.tell("m-1", "one")
    assert again == {**first, "duplicate": True}
    service.cut_on_ack = 1  # its answer is lost on the way: the service tells it again after the next welcome
    second = await channel.tell("m-2", "two")
    assert (second["conversation_id"], second["duplicate"]) == (first["conversation_id"], True)
    await channel.reply(second["turn_id"])
    service.cut_before_ack = 1  # what it takes is told again after the next welcome, with the same id
    third = await api.post(f"/conversations/{first['conversation_id']}/messages", json={"content": "three"})
    assert third.status_code == 200, third.text
    await channel.reply(third.json()["turn"]["id"])
    ids = [one["id"] for one in service.attempts if one["type"] != "typing"]
    assert len(ids) == len(set(ids)) + 1, "one of them was told twice"
    assert len(service.lines) >= 4
    stored = await channel.messages(first["conversation_id"])
    assert [one["role"] for one in stored] == ["user", "assistant"] * 3
    assert [one["content"] for one in stored[::2]] == ["one", "two", "three"]
    told = [one["message"]["id"] for one in service.types("message")]
    assert told == [stored[place]["id"] for place in (1, 3, 4, 5)], "replies, and what was written elsewhere, in order"
    await channel.removed()
