"""A person who signs in to a tenant."""

import unicodedata
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

UserStatus = Literal["active", "disabled"]


class User(BaseModel):
    """`role`: one of every tenant's, or of its own. `last_active_at`: to the minute."""

    id: str
    object: Literal["user"] = "user"
    tenant_id: str
    email: str
    name: str | None = None
    role: str
    status: UserStatus = "active"
    preferences: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    created_at: datetime
    updated_at: datetime
    last_active_at: datetime | None = None


def email_key(email: str) -> str:
    """As addresses are compared: no two users of a tenant differ by case or by the form of a character alone."""
    return unicodedata.normalize("NFKC", email).casefold()
