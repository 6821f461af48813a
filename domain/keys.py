"""API keys as they are told: all but the key."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, computed_field

MOST_KEYS = 10_000  # of a tenant
LONGEST_OVERLAP = 7 * 24 * 3600  # seconds that a key outlives its rotation, at the most
USUAL_OVERLAP = 3600


class ApiKey(BaseModel):
    """`prefix`: how the key begins. `scopes`: to which permissions it is narrowed; null: all of its role.
    `replaced_by`: the key that rotation put in its place."""

    id: str
    object: Literal["api_key"] = "api_key"
    tenant_id: str
    name: str
    prefix: str
    role: str
    scopes: list[str] | None
    user_id: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= datetime.now(UTC) else "active"


class MadeKey(ApiKey):
    """A key with its secret, as it is shown once."""

    key: str
