"""What a caller may do: permissions, and the roles that hold them.

A route names one permission. A role is a set of them; a key or a token may be narrowed further by scopes, which are
names of permissions too.
"""

from collections.abc import Iterable
from enum import StrEnum

from domain.errors import BrainError


class Permission(StrEnum):
    """One thing that a caller may do. `…:any` reaches beyond the caller's own conversations and account."""

    CONVERSATIONS_READ = "conversations:read"
    CONVERSATIONS_WRITE = "conversations:write"
    CONVERSATIONS_DELETE = "conversations:delete"
    CONVERSATIONS_ANY = "conversations:any"
    MESSAGES_SEND = "messages:send"
    MESSAGES_WRITE = "messages:write"
    MESSAGES_AS_SYSTEM = "messages:system"
    COMPLETIONS_CREATE = "completions:create"
    MODELS_READ = "models:read"
    MODELS_MANAGE = "models:manage"
    INTENTS_READ = "intents:read"
    INTENTS_MANAGE = "intents:manage"
    CATALOG_READ = "catalog:read"
    CATALOG_MANAGE = "catalog:manage"
    USERS_SELF = "users:self"
    USERS_READ = "users:read"
    USERS_MANAGE = "users:manage"
    SIGN_IN = "users:sign-in"
    ROLES_READ = "roles:read"
    ROLES_MANAGE = "roles:manage"
    KEYS_READ = "keys:read"
    KEYS_MANAGE = "keys:manage"
    CLIENTS_MANAGE = "clients:manage"
    SETTINGS_READ = "settings:read"
    SETTINGS_MANAGE = "settings:manage"
    USAGE_READ = "usage:read"
    AUDIT_READ = "audit:read"
    DATA_EXPORT = "data:export"
    DATA_ERASE = "data:erase"
    EVENTS_READ = "events:read"
    WEBHOOKS_MANAGE = "webhooks:manage"
    CHANNELS_MANAGE = "channels:manage"
    TOOLS_READ = "tools:read"
    TOOLS_MANAGE = "tools:manage"
    HEALTH_READ = "health:read"
    PLATFORM_TENANTS = "platform:tenants"
    PLATFORM_MODELS = "platform:models"
    PLATFORM_USAGE = "platform:usage"
    PLATFORM_OPERATE = "platform:operate"

    @property
    def beyond_tenant(self) -> bool:
        """Whether it is about the service as a whole: the operator's alone."""
        return self.startswith("platform:")


P = Permission
OPERATOR = "operator"

_READ_ONLY = frozenset(
    {
        P.CONVERSATIONS_READ,
        P.CONVERSATIONS_ANY,
        P.MODELS_READ,
        P.INTENTS_READ,
        P.CATALOG_READ,
        P.USERS_SELF,
        P.EVENTS_READ,
        P.TOOLS_READ,
    }
)
_MEMBER = frozenset(
    {
        P.CONVERSATIONS_READ,
        P.CONVERSATIONS_WRITE,
        P.CONVERSATIONS_DELETE,
        P.MESSAGES_SEND,
        P.MESSAGES_WRITE,
        P.COMPLETIONS_CREATE,
        P.MODELS_READ,
        P.INTENTS_READ,
        P.CATALOG_READ,
        P.USERS_SELF,
        P.SIGN_IN,
        P.EVENTS_READ,
        P.TOOLS_READ,
    }
)
_AGENT = _MEMBER | {P.CONVERSATIONS_ANY, P.MESSAGES_AS_SYSTEM, P.USERS_READ, P.SETTINGS_READ}
_SERVICE = _MEMBER | {P.CONVERSATIONS_ANY, P.USERS_READ, P.SETTINGS_READ}
_ADMIN = frozenset(one for one in Permission if not one.beyond_tenant and one is not P.DATA_ERASE)

ROLES: dict[str, frozenset[Permission]] = {
    "owner": _ADMIN | {P.DATA_ERASE},
    "admin": _ADMIN,
    "agent": _AGENT,
    "member": _MEMBER,
    "read-only": _READ_ONLY,
    "service": _SERVICE,
    OPERATOR: frozenset(Permission),
}
"""The roles that every tenant has. The operator's is given by nobody: the installation makes its one key."""

GIVEN = tuple(role for role in ROLES if role != OPERATOR)


class UnknownPermission(BrainError):
    """There is no such permission, or a tenant cannot give it."""

    status = 422
    type = "invalid_request_error"
    code = "unknown_permission"


class Wider(BrainError):
    """What you would give or change may do more than you may."""

    status = 403
    type = "permission_error"
    code = "forbidden"


def permissions_of(
    role: str, custom: Iterable[str] | None = None, scopes: Iterable[str] | None = None
) -> frozenset[Permission]:
    """What a role of this name may do, narrowed to `scopes`. `custom`: the names of a tenant's own role.

    A name that means nothing (any more) gives nothing; no role of a tenant reaches beyond it.
    """
    held = ROLES.get(role)
    if held is None:
        held = frozenset(one for one in named(custom or ()) if not one.beyond_tenant)
    return held if scopes is None else held & named(scopes)


def named(names: Iterable[str]) -> frozenset[Permission]:
    """Those permissions that these names mean; others are left out."""
    known = {one.value: one for one in Permission}
    return frozenset(known[name] for name in names if name in known)


def checked(names: Iterable[str]) -> frozenset[Permission]:
    """The permissions that a tenant may give by these names. Raises `UnknownPermission`, naming one that is none."""
    known = {one.value: one for one in Permission if not one.beyond_tenant}
    for name in names:
        if name not in known:
            raise UnknownPermission(f"{name[:64]!r} is no permission that can be given")
    return frozenset(known[name] for name in names)
