"""What the service tells other systems: domain events in the form of CloudEvents 1.0 (JSON format).

An event tells ids, never a message's text: whoever delivers it reads the text as it is stored at that moment, so
nothing that was deleted or masked lives on in a stream. Attributes: https://github.com/cloudevents/spec, version 1.0.2;
`partitionkey` is its partitioning extension and holds what events keep their order for.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SPEC_VERSION = "1.0"
SPACE = uuid.UUID("6b9a1f0e-6d0b-5d0c-9a55-2f6c6a0c1e5d")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """`id`: the same however often the event is told, unique with `source`. `type`: a topic, as `message.received`.
    `key`: the conversation whose events keep their order, else the tenant. `time`: when it happened."""

    id: str
    type: str
    tenant: str
    time: datetime
    key: str
    subject: str | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return f"/tenants/{self.tenant}"

    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "partitionkey": self.key,
            "datacontenttype": "application/json",
            "data": self.data,
        }
        return body if self.subject is None else {**body, "subject": self.subject}


def event_id(tenant: str, outbox_id: int, at: datetime, type: str) -> str:
    """The id of what a row of the outbox tells. Its time is part of it: a restored backup gives a number again."""
    return "evt_" + uuid.uuid5(SPACE, f"{tenant}/{outbox_id}/{at.timestamp():.6f}/{type}").hex
