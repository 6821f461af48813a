"""The keys that sign access tokens: published, and replaced."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from serve_app.ingress import logs
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import Operates
from serve_app.ingress.context import visit_of
from serve_app.ingress.identity import identity_of
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sessions import changed

router = APIRouter(tags=["signing in"])
CACHED_S = 300  # a key is published some seconds before its first signature, and long after its last


class KeySet(BaseModel):
    keys: list[dict[str, Any]]


class RotatedKey(BaseModel):
    id: str
    object: Literal["signing_key"] = "signing_key"
    algorithm: str


@router.get("/.well-known/jwks.json", response_model=None, responses={200: {"model": KeySet}})
async def jwks(request: Request) -> Response:
    """The public keys of access tokens (RFC 7517)."""
    return Answer(identity_of(request).tokens.jwks, headers={"cache-control": f"public, max-age={CACHED_S}"})


@router.post(
    "/api/v1/admin/signing-keys/rotate",
    status_code=201,
    response_model=None,
    responses={201: {"model": RotatedKey}},
    tags=["administration"],
)
async def rotate_signing_key(request: Request, who: Operates) -> Response:
    """Sign with another key from now on. Tokens of the one before count until they expire."""
    identity = identity_of(request)
    made = await identity.keys.rotate()
    logs.write(
        "audit",
        request_id=visit_of(request.scope).request_id,
        caller=who.key_id,
        tenant=who.tenant,
        action="signing_key.rotate",
        key=made,
    )
    await changed(parts_of(request))
    return Answer({"id": made, "object": "signing_key", "algorithm": "EdDSA"}, 201)
