"""A channel of signed webhooks in both directions: we post to its URL, it posts to ours."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.posting import Posting
from domain.channels import Binding, Channel, ChannelState, Kind, Outbound, OutboundType, Receive, Sent
from domain.ids import new_id


class WebhookChannel:
    """`domain.channels.ChannelPort` without connections. What it receives comes in through a route of the API."""

    kind: Kind = "webhook"

    def __init__(self, posting: Posting, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._posting, self._now = posting, now
        self.receive: Receive | None = None

    def on_receive(self, receive: Receive) -> None:
        self.receive = receive

    async def connect(self, channels: Sequence[Channel]) -> None:
        """Nothing: each request is a connection of its own."""

    async def send(self, channel: Channel, out: Outbound) -> Sent:
        if out.type == "receipt" and not channel.settings.get("receipts", True):
            return Sent("taken")
        return await self._post(channel, out)

    async def typing(self, channel: Channel, binding: Binding, typing: bool, user: str | None = None) -> None:
        if not channel.settings.get("typing", True):
            return
        kind: OutboundType = "typing"
        data = {"typing": typing, "user": user}
        told = Outbound(new_id("evt"), kind, binding.conversation, binding.thread, binding.user, self._now(), data)
        await self._post(channel, told)

    async def status(self, channel: Channel) -> ChannelState:
        return ChannelState()

    async def heartbeat(self, channel: Channel) -> bool:
        return True

    async def reconnect(self, channel: Channel) -> None:
        """Nothing, as `connect`."""

    async def close(self) -> None:
        """Nothing, as `connect`."""

    async def _post(self, channel: Channel, out: Outbound) -> Sent:
        return await self._posting.post(
            str(channel.settings["url"]), channel.secrets, out.id, outbound_json(channel, out)
        )


def outbound_json(channel: Channel, out: Outbound) -> Mapping[str, Any]:
    """The body of `docs/channels.md`."""
    return {
        "id": out.id,
        "type": out.type,
        "channel_id": channel.id,
        "conversation_id": out.conversation,
        "thread": out.thread,
        "user": out.user,
        "at": out.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "in_reply_to": out.in_reply_to,
        **out.data,
    }
