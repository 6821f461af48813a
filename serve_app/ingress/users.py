"""Users of a tenant: made, read, changed and removed by who manages them, and each by itself."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.commands import Change
from domain.conversation import ConversationKey
from domain.errors import NameTaken, NotFound
from domain.ids import new_id
from domain.permissions import Permission
from domain.tenant import Caller
from domain.user import User, UserStatus
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import IsSelf, ManagesUser, ManagesUsers, ReadsUser, ReadsUsers, forbidden
from serve_app.ingress.bodies import checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.params import NewestFirst, known, text
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.passwords import check_new
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.sessions import changed, ended
from serve_app.ingress.user_bodies import DeletedUser, UserCreate, UserList, UserPatch, secret_hash, user_json
from storage.users import NewUser

router = APIRouter(prefix="/api/v1/users", tags=["users"])

OWN = frozenset(("name", "preferences"))  # what users change of themselves
AT_ONCE, PIECE = 8, 100  # conversations of a user that goes


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": User}},
    openapi_extra=takes(UserCreate, creates=True),
)
async def create_user(request: Request, who: ManagesUsers) -> Response:
    """Make a user, with a role that may do no more than the caller."""
    identity = identity_of(request)
    body, key = checked(UserCreate, await request.body(), strict=True), idempotency_key(request)
    await identity.users.check_role(who, body.role)
    hashed = None
    if body.password is not None:
        await check_new(body.password, body.email, body.name)
        hashed = await identity.passwords.hashed(body.password)
    new = NewUser(
        id=new_id("usr"),
        email=body.email,
        role=body.role,
        name=body.name,
        password_hash=hashed,
        status=body.status,
        preferences=body.preferences,
        metadata=body.metadata,
        key=key,
        body_hash=secret_hash(identity.body_key, "users", body),
    )
    try:
        made, replayed = await identity.users.create(who, new)
    except NameTaken as error:
        raise Problem(409, str(error), "email", "email_taken") from None
    return Answer(user_json(made), 201, REPLAYED if replayed else None)


@router.get("", response_model=None, responses={200: {"model": UserList}})
async def list_users(
    request: Request,
    who: ReadsUsers,
    page: NewestFirst,
    role: Annotated[str | None, Query(max_length=63)] = None,
    status: UserStatus | None = None,
) -> Response:
    """The tenant's users, newest first."""
    if page.after is not None:
        known(page.after, "usr", "user")
    return page_answer(await identity_of(request).users.page(who.tenant, page, text("role", role), status), user_json)


@router.get("/me", response_model=None, responses={200: {"model": User}})
async def get_me(request: Request, who: IsSelf) -> Response:
    """The user who asks."""
    if who.user is None:
        raise NotFound("this key is the tenant's own: it is no user's")
    return Answer(user_json(await identity_of(request).users.one(who.tenant, who.user)))


@router.get("/{user_id}", response_model=None, responses={200: {"model": User}})
async def get_user(request: Request, who: ReadsUser, user_id: str) -> Response:
    return Answer(user_json(await user_of(request, who, user_id)))


@router.patch("/{user_id}", response_model=None, responses={200: {"model": User}}, openapi_extra=takes(UserPatch))
async def change_user(request: Request, who: ManagesUser, user_id: str) -> Response:
    """Change the given fields. Who is disabled is signed out at once; a role counts at once."""
    parts, identity = parts_of(request), identity_of(request)
    known(user_id, "usr", "user")
    body = checked(UserPatch, await request.body(), strict=True)
    fields = {name: getattr(body, name) for name in body.model_fields_set}
    if not fields:
        raise Problem(422, "name at least one field to change")
    if not who.may(Permission.USERS_MANAGE) and (foreign := sorted(fields.keys() - OWN)):
        raise Problem(403, f"{foreign[0]}: only who manages users changes it", foreign[0])
    password = fields.pop("password", None)
    if password is not None:
        await _set_password(parts, identity, who, user_id, password, fields.get("email"))
    if fields:
        try:
            made, sessions = await identity.users.change(who, user_id, fields)
        except NameTaken as error:
            raise Problem(409, str(error), "email", "email_taken") from None
        await ended(parts, identity, who.tenant, sessions)
        return Answer(user_json(made))
    return Answer(user_json(await identity.users.one(who.tenant, user_id)))


@router.delete("/{user_id}", response_model=None, responses={200: {"model": DeletedUser}})
async def delete_user(
    request: Request,
    who: ManagesUser,
    user_id: str,
    erase: Annotated[
        bool, Query(description="delete the user's conversations too; else they stay as nobody's")
    ] = False,
) -> Response:
    """Remove a user: sign-ins and keys end at once."""
    parts, identity = parts_of(request), identity_of(request)
    known(user_id, "usr", "user")
    if erase and user_id != who.user and not who.may(Permission.DATA_ERASE):
        raise forbidden(Permission.DATA_ERASE)
    sessions = await identity.users.close(who, user_id)
    await ended(parts, identity, who.tenant, sessions)
    count = await _let_go(parts, identity, who.tenant, user_id, erase)
    told = {"conversations_deleted": count if erase else 0, "conversations_kept": 0 if erase else count}
    await identity.users.delete(who, user_id, told)
    await changed(parts)
    return Answer({"id": user_id, "object": "user", "deleted": True, **told})


async def user_of(request: Request, who: Caller, user_id: str) -> User:
    """Raises `NotFound`."""
    return await identity_of(request).users.one(who.tenant, known(user_id, "usr", "user"))


async def _set_password(
    parts: Parts, identity: Identity, who: Caller, user_id: str, password: str, email: str | None
) -> None:
    """An administrator's doing; users change their own by `POST /auth/password`, which asks for the present one."""
    user = await identity.users.one(who.tenant, user_id)
    await check_new(password, email or user.email, user.name)
    but = who.session if user_id == who.user else None
    sessions = await identity.users.set_password(who, user_id, await identity.passwords.hashed(password), but)
    await ended(parts, identity, who.tenant, sessions)


async def _let_go(parts: Parts, identity: Identity, tenant: str, user_id: str, erase: bool) -> int:
    """Through the conversations' mailboxes, so that no turn goes on for a user who is gone; how many there were."""
    places, count = asyncio.Semaphore(AT_ONCE), 0

    async def one(conversation: str) -> None:
        key = ConversationKey(tenant, conversation)
        async with places:
            try:
                await (parts.hosts.delete(key) if erase else parts.hosts.change(Change(key, _NOBODY)))
            except NotFound:
                return  # deleted meanwhile

    while theirs := await identity.activity.conversations(tenant, user_id, PIECE):
        await asyncio.gather(*map(one, theirs))
        count += len(theirs)
    return count


_NOBODY: dict[str, Any] = {"user_id": None}
