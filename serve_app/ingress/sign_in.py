"""Registering, signing in and out with an e-mail address and a password."""

import hashlib
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.errors import NameTaken
from domain.ids import new_id
from domain.user import User, email_key
from serve_app.ingress import logs
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import IsSelf, SignsIn
from serve_app.ingress.bodies import checked, idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.parts import parts_of
from serve_app.ingress.passwords import check_new
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.sessions import NO_STORE, ended, granted, opened, rotated, sign_out
from serve_app.ingress.user_bodies import (
    Login,
    PasswordChange,
    Refresh,
    Register,
    SignedIn,
    SignedOut,
    secret_hash,
    user_json,
)
from storage.attempts import Limit
from storage.users import NewUser

router = APIRouter(prefix="/api/v1/auth", tags=["signing in"])

WINDOW = 300.0  # seconds
BY_BOTH, BY_ACCOUNT, BY_ADDRESS = 10, 100, 300  # failures in it, by account and address, account alone, address alone


@router.post(
    "/register",
    status_code=201,
    response_model=None,
    responses={201: {"model": User}},
    openapi_extra=takes(Register, creates=True),
)
async def register(request: Request, who: SignsIn) -> Response:
    """Make a user, with the role `member`. Needs a key of the tenant."""
    identity = identity_of(request)
    body, key = checked(Register, await request.body(), strict=True), idempotency_key(request)
    await check_new(body.password, body.email, body.name)
    address = [_limits(request, who.tenant, body.email)[-1]]
    await identity.attempts.take(address)  # whether an address is taken is told: it must not be asked for by thousands
    new = NewUser(
        id=new_id("usr"),
        email=body.email,
        role="member",
        name=body.name,
        password_hash=await identity.passwords.hashed(body.password),
        preferences=body.preferences,
        metadata=body.metadata,
        key=key,
        body_hash=secret_hash(identity.body_key, "auth/register", body),
    )
    try:
        made, replayed = await identity.users.create(who, new, "user.register")
    except NameTaken as error:
        raise _taken(error) from None
    await identity.attempts.succeeded(address)
    return Answer(user_json(made), 201, REPLAYED if replayed else None)


@router.post("/login", response_model=None, responses={200: {"model": SignedIn}}, openapi_extra=takes(Login))
async def login(request: Request, who: SignsIn) -> Response:
    """Sign a user of the key's tenant in. Wrong passwords and unknown users are answered alike."""
    identity = identity_of(request)
    body = checked(Login, await request.body(), strict=True)
    user = await signed_in(request, identity, who.tenant, body.email, body.password)
    return await opened(identity, user, who.key_id)


@router.post("/refresh", response_model=None, responses={200: {"model": SignedIn}}, openapi_extra=takes(Refresh))
async def refresh(request: Request) -> Response:
    """Fresh tokens for a refresh token, which counts once. One that comes again ends its sign-in."""
    parts, identity = parts_of(request), identity_of(request)
    body = checked(Refresh, await request.body(), strict=True)
    found = await rotated(parts, identity, body.refresh_token)
    if found is None:
        raise Problem(401, "this refresh token is not valid: sign in again", code="invalid_refresh_token")
    tenant, session, following = found
    user = await identity.users.one(tenant, session.user_id)
    tokens = granted(identity, tenant, user.id, user.role, session, following)
    return Answer({**tokens, "user": user_json(user)}, headers=NO_STORE)


@router.post("/logout", response_model=None, responses={200: {"model": SignedOut}})
async def logout(request: Request, who: IsSelf) -> Response:
    """End the sign-in of the access token that comes with this request, everywhere within a second."""
    if who.token is None:
        raise Problem(422, "this is an API key: only a sign-in is ended here")
    await sign_out(parts_of(request), identity_of(request), who)
    return Answer({"object": "session", "id": who.session, "ended": True})


@router.post("/password", response_model=None, responses={200: {"model": User}}, openapi_extra=takes(PasswordChange))
async def change_password(request: Request, who: IsSelf) -> Response:
    """Change one's own password. The user's other sign-ins end."""
    identity = identity_of(request)
    body = checked(PasswordChange, await request.body(), strict=True)
    if who.user is None or who.token is None:
        raise Problem(403, "only a user who has signed in changes a password")
    user = await identity.users.one(who.tenant, who.user)
    await check_new(body.new_password, user.email, user.name, "new_password")
    await signed_in(request, identity, who.tenant, user.email, body.current_password, "current_password")
    hashed = await identity.passwords.hashed(body.new_password)
    sessions = await identity.users.set_password(who, user.id, hashed, who.session)
    await ended(parts_of(request), identity, who.tenant, sessions)
    return Answer(user_json(await identity.users.one(who.tenant, user.id)))


async def signed_in(
    request: Request, identity: Identity, tenant: str, email: str, password: str, param: str | None = None
) -> User:
    """The active user of this address and password. Raises `Problem` 401, and `TooManyAttempts`."""
    limits = _limits(request, tenant, email)
    await identity.attempts.take(limits)
    found = await identity.users.password(tenant, email)
    user, stored = found or (None, None)
    fits = await identity.passwords.matches(password, stored)
    if user is None or stored is None or not fits or user.status != "active":
        _told(request, tenant, user, "failed")
        raise Problem(401, "the e-mail address or the password is wrong", param, "invalid_credentials")
    await identity.attempts.succeeded(limits)
    if identity.passwords.outdated(stored):
        await identity.users.rehash(tenant, user.id, stored, await identity.passwords.hashed(password))
    _told(request, tenant, user, "succeeded")
    return user


def _limits(request: Request, tenant: str, email: str) -> Sequence[Limit]:
    """Few failures by one account from one address, so that nobody elsewhere locks its owner out; more in all."""
    account = hashlib.sha256(email_key(email).encode()).hexdigest()[:32]
    address = visit_of(request.scope).network
    return (
        Limit(f"sign-in:{tenant}:{account}:{address}", BY_BOTH, WINDOW, clears=True),
        Limit(f"sign-in:{tenant}:{account}", BY_ACCOUNT, WINDOW, clears=True),
        Limit(f"sign-in:{tenant}::{address}", BY_ADDRESS, WINDOW),
    )


def _told(request: Request, tenant: str, user: User | None, outcome: str) -> None:
    logs.write(
        "sign_in",
        request_id=visit_of(request.scope).request_id,
        tenant=tenant,
        user=None if user is None else user.id,
        outcome=outcome,
    )


def _taken(error: NameTaken) -> Problem:
    return Problem(409, str(error), "email", "email_taken")
