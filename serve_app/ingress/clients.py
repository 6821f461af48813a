"""OAuth clients of a tenant: made, listed, removed."""

import base64
import hmac
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field, model_validator
from starlette.responses import Response

from domain.ids import new_id
from domain.permissions import checked as checked_permissions
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ManagesClients
from serve_app.ingress.bodies import Native, body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.sessions import NO_STORE, ended
from serve_app.ingress.shapes import Json, rfc3339
from serve_app.ingress.user_bodies import Name, Role
from storage.clients import Grant, NewClient, OAuthClient

router = APIRouter(prefix="/api/v1/clients", tags=["signing in"])


def _redirect(uri: str) -> str:
    """Exact matching needs no more than this; https, but for a program on the user's own machine (RFC 8252)."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        raise ValueError("must be a URI") from None
    private = "." in parts.scheme and not parts.netloc
    loopback = parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")
    if not (private or loopback or (parts.scheme == "https" and host)) or parts.username is not None:
        raise ValueError("must be an https URI, one of loopback, or one of a scheme such as com.example.app")
    if "#" in uri or not uri.isascii() or not uri.isprintable() or " " in uri or "\\" in uri:
        raise ValueError("must have no fragment, no blank and no backslash")
    return uri


RedirectUri = Annotated[str, Field(max_length=2000), AfterValidator(_redirect)]


class ClientCreate(Native):
    """`confidential`: it can keep a secret, which is shown once. `role`: what it may do by client credentials.
    `scopes`: names of permissions beyond which neither it nor who signs in through it reaches."""

    name: Name
    confidential: bool = True
    redirect_uris: list[RedirectUri] = Field([], max_length=20)
    grants: list[Grant] = Field(["client_credentials"], min_length=1, max_length=2)
    role: Role | None = None
    scopes: Annotated[list[str], Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def fits(self) -> "ClientCreate":
        if "client_credentials" in self.grants and not self.confidential:
            raise ValueError("client_credentials need a client that is confidential")
        if ("authorization_code" in self.grants) != bool(self.redirect_uris):
            raise ValueError("redirect_uris go with the grant authorization_code")
        return self


class CreatedClient(OAuthClient):
    """`client_secret`: the only time that it is shown; null for a public client."""

    client_secret: str | None


class ClientList(ListOf):
    data: list[OAuthClient]


class DeletedClient(BaseModel):
    id: str
    object: Literal["client"] = "client"
    deleted: Literal[True] = True


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": CreatedClient}},
    openapi_extra=takes(ClientCreate, creates=True),
)
async def create_client(request: Request, who: ManagesClients) -> Response:
    """Make an OAuth client, which may do no more than the caller. Its id is the `client_id`."""
    identity = identity_of(request)
    body, key = checked(ClientCreate, await request.body(), strict=True), idempotency_key(request)
    if body.scopes is not None:
        checked_permissions(body.scopes)
    client_id = new_id("cli")
    usual = "service" if "client_credentials" in body.grants else "member"
    made, replayed = await identity.clients.create(
        who,
        NewClient(
            client_id,
            body.name,
            _secret(identity, client_id) if body.confidential else None,
            body.redirect_uris,
            list(dict.fromkeys(body.grants)),
            body.role or usual,
            body.scopes,
            key,
            body_hash("clients", body),
        ),
    )
    secret = _secret(identity, made.id) if made.confidential else None
    headers = {**NO_STORE, **(REPLAYED if replayed else {})}
    return Answer({**client_json(made), "client_secret": secret}, 201, headers)


@router.get("", response_model=None, responses={200: {"model": ClientList}})
async def list_clients(request: Request, who: ManagesClients, page: NewestFirst) -> Response:
    """The tenant's OAuth clients, newest first."""
    if page.after is not None:
        known(page.after, "cli", "client")
    return page_answer(await identity_of(request).clients.page(who.tenant, page), client_json)


@router.get("/{client_id}", response_model=None, responses={200: {"model": OAuthClient}})
async def get_client(request: Request, who: ManagesClients, client_id: str) -> Response:
    known(client_id, "cli", "client")
    return Answer(client_json(await identity_of(request).clients.one(who.tenant, client_id)))


@router.delete("/{client_id}", response_model=None, responses={200: {"model": DeletedClient}})
async def delete_client(request: Request, who: ManagesClients, client_id: str) -> Response:
    """Remove a client: its tokens, and those of who signed in through it, count no more."""
    identity = identity_of(request)
    known(client_id, "cli", "client")
    sessions = await identity.clients.delete(who, client_id)
    await ended(parts_of(request), identity, who.tenant, sessions)
    return Answer({"id": client_id, "object": "client", "deleted": True})


def client_json(client: OAuthClient) -> Json:
    return {**client.model_dump(mode="json"), "created_at": rfc3339(client.created_at)}


def _secret(identity: Identity, client_id: str) -> str:
    """256 bits that follow from the client's id under a key that no database holds, so that a request which is repeated
    is answered the same."""
    raw = hmac.digest(identity.body_key, b"client-secret\n" + client_id.encode(), "sha256")
    return "bcs_" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
