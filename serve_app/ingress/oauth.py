"""OAuth 2: tokens for clients and through them, as RFC 9700 advises: no implicit grant, no passwords, PKCE always."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from domain.errors import NotFound
from domain.permissions import Permission
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import IsSelf
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.oauth_forms import OAuthError, Refusal, client_of, form_of, required, takes_form
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.sessions import NO_STORE, ended, granted, new_refresh, rotated, tenant_of
from serve_app.ingress.shapes import rfc3339
from storage.clients import OAuthClient, token_hash

router = APIRouter(tags=["signing in"])
_REFUSED: dict[int | str, dict[str, Any]] = {"default": {"model": OAuthError, "description": "An error"}}
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_KNOWN = {one.value for one in Permission if not one.beyond_tenant}


class Granted(BaseModel):
    """As RFC 6749, section 5.1, has it."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    refresh_token: str | None = None
    scope: str | None = None


class Introspected(BaseModel):
    """As RFC 7662 has it. Of a token that does not count it says that alone."""

    active: bool
    sub: str | None = None
    client_id: str | None = None
    tenant: str | None = None
    role: str | None = None
    scope: str | None = None
    token_type: str | None = None
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None
    iat: int | None = None
    exp: int | None = None


class UserInfo(BaseModel):
    sub: str
    email: str
    name: str | None
    role: str
    tenant: str
    updated_at: str


class Metadata(BaseModel):
    """As RFC 8414 has it."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    userinfo_endpoint: str
    jwks_uri: str
    response_types_supported: list[str]
    grant_types_supported: list[str]
    code_challenge_methods_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    scopes_supported: list[str]
    authorization_response_iss_parameter_supported: bool


@router.post(
    "/api/v1/auth/token",
    response_model=None,
    responses={200: {"model": Granted}, **_REFUSED},
    openapi_extra=takes_form(
        *("grant_type", "client_id", "client_secret", "scope", "code", "redirect_uri", "code_verifier"),
        "refresh_token",
        required=("grant_type",),
    ),
)
async def token(request: Request) -> Response:
    """Tokens by `client_credentials`, `authorization_code` with PKCE, or `refresh_token`. Errors are RFC 6749's."""
    parts, identity = parts_of(request), identity_of(request)
    try:
        form = await form_of(request)
        grant = _GRANTS.get(required(form, "grant_type"))
        client = await client_of(request, identity, form)
        if grant is None:
            raise Refusal("unsupported_grant_type", f"there are {', '.join(_GRANTS)}")
        return Answer(await grant(parts, identity, client, form), headers=NO_STORE)
    except Refusal as refusal:
        return refusal.answer


@router.post(
    "/api/v1/auth/revoke",
    response_model=None,
    responses={200: {"description": "It counts no more, if it ever did."}, **_REFUSED},
    openapi_extra=takes_form("token", "token_type_hint", "client_id", "client_secret", required=("token",)),
)
async def revoke(request: Request) -> Response:
    """End a refresh token with its whole sign-in, or an access token (RFC 7009). Of the client's own alone."""
    parts, identity = parts_of(request), identity_of(request)
    try:
        form = await form_of(request)
        client = await client_of(request, identity, form)
        shown = required(form, "token")
    except Refusal as refusal:
        return refusal.answer
    if (tenant := tenant_of(shown)) == client.tenant_id:
        found = await identity.sessions.of_refresh(tenant, token_hash(shown))
        if found is not None and found[0].client_id == client.id:
            await identity.sessions.end(tenant, found[0].id)
            await ended(parts, identity, tenant, [found[0].id])
    claims = identity.tokens.verified(shown)
    if claims is not None and claims.tenant == client.tenant_id and client.id in (claims.client, claims.subject):
        await identity.sessions.end(claims.tenant, None, claims.id)
        await ended(parts, identity, claims.tenant, [claims.id])
    return Answer({}, headers=NO_STORE)


@router.post(
    "/api/v1/auth/introspect",
    response_model=None,
    responses={200: {"model": Introspected}, **_REFUSED},
    openapi_extra=takes_form("token", "token_type_hint", "client_id", "client_secret", required=("token",)),
)
async def introspect(request: Request) -> Response:
    """Whether a token of the client's tenant counts, and what it says (RFC 7662). For clients with a secret."""
    identity = identity_of(request)
    try:
        form = await form_of(request)
        client = await client_of(request, identity, form)
        if not client.confidential:
            raise Refusal("unauthorized_client", "only a client with a secret asks about tokens", 403)
        shown = required(form, "token")
    except Refusal as refusal:
        return refusal.answer
    return Answer(await _told(identity, client, shown), headers=NO_STORE)


@router.get("/api/v1/auth/userinfo", response_model=None, responses={200: {"model": UserInfo}})
async def userinfo(request: Request, who: IsSelf) -> Response:
    """Whom the access token names."""
    if who.user is None:
        raise Problem(403, "this is no user's token")
    user = await identity_of(request).users.one(who.tenant, who.user)
    return Answer(
        {
            "sub": user.id,
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "tenant": user.tenant_id,
            "updated_at": rfc3339(user.updated_at),
        },
        headers=NO_STORE,
    )


@router.get("/.well-known/oauth-authorization-server", response_model=None, responses={200: {"model": Metadata}})
async def metadata(request: Request) -> Response:
    """Where everything is, for clients that look for it (RFC 8414)."""
    issuer = identity_of(request).tokens.issuer
    base = f"{issuer}/api/v1/auth"
    found = Metadata(
        issuer=issuer,
        authorization_endpoint=f"{base}/authorize",
        token_endpoint=f"{base}/token",
        revocation_endpoint=f"{base}/revoke",
        introspection_endpoint=f"{base}/introspect",
        userinfo_endpoint=f"{base}/userinfo",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        response_types_supported=["code"],
        grant_types_supported=list(_GRANTS),
        code_challenge_methods_supported=["S256"],
        token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post", "none"],
        scopes_supported=sorted(_KNOWN),
        authorization_response_iss_parameter_supported=True,
    )
    return Answer(found.model_dump(), headers={"cache-control": "public, max-age=300"})


def scopes_of(wanted: str | None, most: Sequence[str] | None) -> tuple[str, ...] | None:
    """The scopes that are asked for, within `most`; all of these where none is named. Raises `Refusal`."""
    if wanted is None:
        return None if most is None else tuple(most)
    names = tuple(dict.fromkeys(wanted.split()))
    if not names or not set(names) <= (_KNOWN if most is None else set(most)):
        raise Refusal("invalid_scope", "a scope is not known, or is more than may be asked for")
    return names


async def _client_credentials(
    parts: Parts, identity: Identity, client: OAuthClient, form: Mapping[str, str]
) -> dict[str, Any]:
    _check_grant(client, "client_credentials")
    scopes = scopes_of(form.get("scope"), client.scopes)
    return granted(identity, client.tenant_id, client.id, client.role, via=client.id, scopes=scopes)


async def _authorization_code(
    parts: Parts, identity: Identity, client: OAuthClient, form: dict[str, str]
) -> dict[str, Any]:
    _check_grant(client, "authorization_code")
    code, uri, verifier = (required(form, name) for name in ("code", "redirect_uri", "code_verifier"))
    if not _VERIFIER.fullmatch(verifier):
        raise Refusal("invalid_request", "code_verifier is not of RFC 7636's form")
    refresh = new_refresh(client.tenant_id)
    session = await identity.clients.redeem(client, code, uri, challenge_of(verifier), refresh)
    if session is None:
        raise Refusal("invalid_grant", "the code is not known, has expired, was used, or is another request's")
    role = await _role(identity, client.tenant_id, session.user_id)
    return granted(identity, client.tenant_id, session.user_id, role, session, refresh, client.id)


async def _refresh_token(parts: Parts, identity: Identity, client: OAuthClient, form: dict[str, str]) -> dict[str, Any]:
    shown, wanted = required(form, "refresh_token"), form.get("scope")
    invalid = Refusal("invalid_grant", "the refresh token is not known, has expired, or was used")
    if tenant_of(shown) != client.tenant_id:
        raise invalid
    narrowed = None
    if wanted is not None and (known := await identity.sessions.of_refresh(client.tenant_id, token_hash(shown))):
        narrowed = scopes_of(wanted, known[0].scopes)
    found = await rotated(parts, identity, shown, client.id)
    if found is None:
        raise invalid
    tenant, session, following = found
    if narrowed is not None:
        session = replace(session, scopes=narrowed)
    role = await _role(identity, tenant, session.user_id)
    return granted(identity, tenant, session.user_id, role, session, following, client.id)


_GRANTS = {
    "authorization_code": _authorization_code,
    "client_credentials": _client_credentials,
    "refresh_token": _refresh_token,
}


def challenge_of(verifier: str) -> str:
    """S256 of RFC 7636."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _check_grant(client: OAuthClient, grant: Literal["authorization_code", "client_credentials"]) -> None:
    if grant not in client.grants:
        raise Refusal("unauthorized_client", f"this client was not made for {grant}")


async def _role(identity: Identity, tenant: str, user_id: str) -> str:
    try:
        return (await identity.users.one(tenant, user_id)).role
    except NotFound:
        raise Refusal("invalid_grant", "there is no such user any more") from None


async def _told(identity: Identity, client: OAuthClient, shown: str) -> dict[str, Any]:
    nothing = {"active": False}
    if (tenant := tenant_of(shown)) is not None:
        known = await identity.sessions.of_refresh(tenant, token_hash(shown)) if tenant == client.tenant_id else None
        if known is None or not known[1] or known[0].client_id != client.id:
            return nothing
        return {"active": True, "sub": known[0].user_id, "client_id": client.id, "token_type": "refresh_token"}
    claims = identity.tokens.verified(shown)
    if claims is None or claims.tenant != client.tenant_id:
        return nothing
    caller = await identity.callers.find(shown)
    if caller is None:
        return nothing
    told = {
        "active": True,
        "sub": claims.subject,
        "client_id": claims.client,
        "tenant": claims.tenant,
        "role": caller.role,
        "scope": None if claims.scopes is None else " ".join(claims.scopes),
        "token_type": "Bearer",
        "iss": identity.tokens.issuer,
        "aud": identity.tokens.audience,
        "jti": claims.id,
        "iat": int(claims.issued_at),
        "exp": int(claims.expires_at),
    }
    return {name: value for name, value in told.items() if value is not None}
