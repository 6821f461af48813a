"""Who calls: a tenant, and the key or the signed-in user through which it does."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from domain.permissions import OPERATOR, Permission
from domain.tenant_settings import TenantSettings

TenantStatus = Literal["active", "suspended"]


class Tenant(BaseModel):
    """A customer of the service. Nothing of a suspended one's is reachable with its keys, and nothing is removed."""

    id: str
    object: Literal["tenant"] = "tenant"
    name: str
    status: TenantStatus
    settings: TenantSettings
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `key_id` scopes idempotency keys: the key's id; of a token the user's or the client's.

    `user`: who signed in, or whose key it is; None for a key of the tenant itself. `expires_at`: Unix seconds, after
    which the credential counts no more. `token`, `session`: of an access token, its id and its sign-in's.
    """

    tenant: str
    key_id: str
    role: str = "member"
    permissions: frozenset[Permission] = frozenset()
    user: str | None = None
    expires_at: float | None = None
    token: str | None = None
    session: str | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    @property
    def operator(self) -> bool:
        """Whether this is the operator of the whole service."""
        return self.role == OPERATOR

    @property
    def only_user(self) -> str | None:
        """The user beyond whose own conversations this caller does not see; None where it sees the tenant's."""
        return None if Permission.CONVERSATIONS_ANY in self.permissions else self.user
