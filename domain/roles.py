"""Roles as they are told: those that every tenant has, and its own."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from domain.permissions import GIVEN, ROLES

MOST_ROLES = 100  # of a tenant's own
ABOUT = {
    "owner": "all that is the tenant's, also the erasure of data",
    "admin": "all that is the tenant's but the erasure of data",
    "agent": "answers in everybody's conversations",
    "member": "has conversations of its own",
    "read-only": "reads everybody's conversations",
    "service": "an application that acts for the tenant's users",
}


class Role(BaseModel):
    """`built_in`: every tenant has it, and nobody changes it."""

    object: Literal["role"] = "role"
    name: str
    description: str
    permissions: list[str]
    built_in: bool
    created_at: datetime | None = None
    updated_at: datetime | None = None


BUILT_IN = tuple(
    Role(name=name, description=ABOUT[name], permissions=sorted(ROLES[name]), built_in=True) for name in GIVEN
)
