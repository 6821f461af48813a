"""Who calls: a tenant, and the API key through which it does."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["operator", "admin", "member"]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `key_id` scopes idempotency keys; the operator also sees the service's own state."""

    tenant: str
    key_id: str
    role: Role = "member"
