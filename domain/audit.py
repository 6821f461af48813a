"""What the audit log tells: who changed what, and when."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel


class AuditActor(BaseModel):
    """The credential that acted: its key (of a token its user or client), the user behind it, its role."""

    key_id: str
    user: str | None = None
    role: str


class AuditEntry(BaseModel):
    """`action`: what was done, as in `key.create`; `subject`: the id or name of what it was done to."""

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    tenant_id: str
    at: datetime
    actor: AuditActor
    action: str
    subject: str | None
    detail: dict[str, Any]
