"""How deliveries leave: events to webhooks, what happens in conversations to their channels."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from adapters.posting import Posting
from domain.channels import Channel, ChannelPort, Kind, Outbound, OutboundType, Sent
from domain.deliveries import Delivery, Due, WebhookTarget
from domain.message import Message

CLOUD_EVENT = "application/cloudevents+json"
Told = Callable[[Message], dict[str, Any]]


class OutTransport:
    """`domain.deliveries.Transport`. `told`: a message as the API shows it."""

    def __init__(self, posting: Posting, ports: Mapping[Kind, ChannelPort], told: Told) -> None:
        self._posting, self._ports, self._told = posting, ports, told

    async def send(self, due: Due) -> Sent | None:
        if isinstance(due.target, WebhookTarget):
            return await self._event(due.target, due.delivery, due.message)
        return await self._to_channel(due.target, due)

    async def _event(self, target: WebhookTarget, delivery: Delivery, message: Message | None) -> Sent:
        event = delivery.event
        if target.include_content and delivery.message_id is not None:
            content = None if message is None else self._told(message)
            event = {**event, "data": {**event["data"], "message": content}}
        return await self._posting.post(target.url, target.secrets, delivery.event_id, event, CLOUD_EVENT)

    async def _to_channel(self, channel: Channel, due: Due) -> Sent | None:
        port = self._ports.get(channel.kind)
        if port is None:
            return None
        out = _outbound(due)
        if out.type == "message":
            if due.message is None:  # it was deleted: there is nothing to show
                return None
            out = _outbound(due, {**out.data, "message": self._told(due.message)})
        return await port.send(channel, out)


def _outbound(due: Due, data: dict[str, Any] | None = None) -> Outbound:
    event, kind = due.delivery.event, due.delivery.type
    type: OutboundType = kind  # type: ignore[assignment]
    return Outbound(
        due.delivery.event_id,
        type,
        due.lane.stream,
        event["thread"],
        event["user"],
        datetime.fromisoformat(event["at"]),
        event["data"] if data is None else data,
        event["in_reply_to"],
    )
