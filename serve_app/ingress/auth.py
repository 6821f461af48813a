"""From a request to its caller, and what that caller may do. Each route names the permission that it needs."""

from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from domain.acting import TENANT
from domain.limits import Use
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import Problem
from serve_app.ingress.limiting import limit
from serve_app.ingress.owned import check_own
from serve_app.ingress.parts import parts_of

LONGEST = 8192  # characters of a credential


async def authenticated(request: Request) -> Caller:
    """The caller that the `Authorization` header names. Raises `Problem` 401, and `Unavailable`."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise unauthenticated("send your API key as `Authorization: Bearer <key>`")
    caller = await parts_of(request).callers.caller(credential) if len(credential) <= LONGEST else None
    if caller is None:
        raise unauthenticated("this API key or access token is not valid")
    if (administration := parts_of(request).administration) is not None:
        administration.used.saw(caller)
    visit = visit_of(request.scope)
    visit.tenant, visit.caller = caller.tenant, caller.key_id
    if caller.user is not None and (identity := parts_of(request).identity) is not None:
        identity.last_active.saw(caller.tenant, caller.user)
    TENANT.set(caller.tenant)
    return caller


class Needs:
    """A route's guard: a caller with this permission, and of what the path names, only what that caller may see.

    `use`: what it takes of the caller's limits. Raises `Problem` 401 or 403, `RateLimited`, and `NotFound` for what
    belongs to another user.
    """

    def __init__(self, permission: Permission, use: Use = "request") -> None:
        self.permission, self.use = permission, use

    async def __call__(self, request: Request) -> Caller:
        caller = await authenticated(request)
        await limit(request, caller, self.use)
        if self.permission not in caller.permissions:
            raise forbidden(self.permission)
        if caller.only_user is not None:
            await check_own(request, caller)
        return caller


def needs(permission: Permission, use: Use = "request") -> Any:
    """The dependency of a route that needs `permission`."""
    return Depends(Needs(permission, use))


def forbidden(permission: Permission) -> Problem:
    if permission.beyond_tenant:
        return Problem(403, "this needs the operator's key")
    lacking = f"this needs the permission {permission.value}, which your role or your scopes do not have"
    return Problem(403, f"{lacking}: ask an administrator")


def unauthenticated(words: str) -> Problem:
    return Problem(401, words, headers={"www-authenticate": 'Bearer realm="brain"'})


class OwnOr(Needs):
    """As `Needs`, of the user that the path's `user_id` names; for a user itself `users:self` is enough."""

    async def __call__(self, request: Request) -> Caller:
        caller = await authenticated(request)
        await limit(request, caller, self.use)
        own = caller.user is not None and request.path_params.get("user_id") == caller.user
        if self.permission not in caller.permissions and not (own and Permission.USERS_SELF in caller.permissions):
            raise forbidden(self.permission)
        return caller


P = Permission
SignsIn = Annotated[Caller, needs(P.SIGN_IN)]
IsSelf = Annotated[Caller, needs(P.USERS_SELF)]
ReadsUsers = Annotated[Caller, needs(P.USERS_READ)]
ReadsUser = Annotated[Caller, Depends(OwnOr(P.USERS_READ))]
ManagesUsers = Annotated[Caller, needs(P.USERS_MANAGE)]
ManagesUser = Annotated[Caller, Depends(OwnOr(P.USERS_MANAGE))]
SpeaksAsSystem = Annotated[Caller, needs(P.MESSAGES_AS_SYSTEM)]
ManagesClients = Annotated[Caller, needs(P.CLIENTS_MANAGE)]
Operates = Annotated[Caller, needs(P.PLATFORM_OPERATE)]
ReadsConversations = Annotated[Caller, needs(P.CONVERSATIONS_READ)]
ReadsAnyConversation = Annotated[Caller, needs(P.CONVERSATIONS_ANY)]
WritesConversations = Annotated[Caller, needs(P.CONVERSATIONS_WRITE)]
DeletesConversations = Annotated[Caller, needs(P.CONVERSATIONS_DELETE)]
Sends = Annotated[Caller, needs(P.MESSAGES_SEND)]
WritesMessages = Annotated[Caller, needs(P.MESSAGES_WRITE)]
BeginsTurns = Annotated[Caller, needs(P.MESSAGES_SEND, "turn")]
Completes = Annotated[Caller, needs(P.COMPLETIONS_CREATE, "turn")]
Embeds = Annotated[Caller, needs(P.COMPLETIONS_CREATE, "tokens")]
ReadsModels = Annotated[Caller, needs(P.MODELS_READ)]
ManagesModels = Annotated[Caller, needs(P.MODELS_MANAGE)]
TestsModels = Annotated[Caller, needs(P.MODELS_MANAGE, "turn")]
ManagesSettings = Annotated[Caller, needs(P.SETTINGS_MANAGE)]
ManagesWebhooks = Annotated[Caller, needs(P.WEBHOOKS_MANAGE)]
ManagesChannels = Annotated[Caller, needs(P.CHANNELS_MANAGE)]
ReadsTools = Annotated[Caller, needs(P.TOOLS_READ)]
ManagesTools = Annotated[Caller, needs(P.TOOLS_MANAGE)]
ReadsHealth = Annotated[Caller, needs(P.HEALTH_READ)]
RegistersModels = Annotated[Caller, needs(P.PLATFORM_MODELS)]
ReadsAllUsage = Annotated[Caller, needs(P.PLATFORM_USAGE)]
