"""Forms of OAuth's endpoints, their errors (RFC 6749), and which client sent them."""

import base64
import binascii
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from pydantic import BaseModel
from starlette.requests import Request

from domain.ids import is_id
from serve_app.ingress.answers import Answer
from serve_app.ingress.context import visit_of
from serve_app.ingress.identity import Identity
from serve_app.ingress.sessions import NO_STORE
from storage.attempts import Limit
from storage.clients import OAuthClient

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 32
_FAILURES, _WINDOW = 30, 300.0  # of one client from one address, in so many seconds


class OAuthError(BaseModel):
    """As RFC 6749, section 5.2, has it."""

    error: str
    error_description: str | None = None


class Refusal(Exception):
    """An error as OAuth tells it; `status` is HTTP's."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error, description)
        self.error, self.description, self.status = error, description, status

    @property
    def answer(self) -> Answer:
        headers = {**NO_STORE, "www-authenticate": 'Basic realm="brain"'} if self.status == 401 else NO_STORE
        return Answer({"error": self.error, "error_description": self.description}, self.status, headers)


def takes_form(*fields: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a form."""
    schema = {
        "type": "object",
        "required": list(required),
        "properties": {name: {"type": "string"} for name in fields},
    }
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form; no field comes twice, and an empty one is as if it were not there."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Refusal("invalid_request", f"the body must be {FORM}")
    try:
        raw = (await request.body()).decode("ascii")
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refusal("invalid_request", "the form cannot be read") from None
    return fields_of(pairs)


def fields_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refusal("invalid_request", "a parameter comes twice")
    if any("\0" in value for value in fields.values()):
        raise Refusal("invalid_request", "a parameter holds the character NUL")
    return {name: value for name, value in fields.items() if value}


def required(form: dict[str, str], name: str) -> str:
    if name not in form:
        raise Refusal("invalid_request", f"{name} is missing")
    return form[name]


async def client_of(request: Request, identity: Identity, form: dict[str, str]) -> OAuthClient:
    """The client that sent a form: by its secret, or, where it has none, by its name. Raises `Refusal`."""
    client_id, secret = _credentials(request, form)
    address = visit_of(request.scope).network
    limit = Limit(f"client:{client_id}:{address}", _FAILURES, _WINDOW, clears=True)
    unknown = Refusal("invalid_client", "the client is not known, or its secret is wrong", 401)
    if not is_id(client_id, "cli"):
        raise unknown
    await identity.attempts.take([limit])
    client = await identity.clients.find(client_id)
    if client is None or client.confidential != (secret is not None):
        raise unknown
    if secret is not None and not await identity.clients.has_secret(client, secret):
        raise unknown
    await identity.attempts.succeeded([limit])
    return client


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str | None]:
    """RFC 6749, section 2.3.1: by HTTP Basic or in the form, never both."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return required(form, "client_id"), form.get("client_secret")
    try:
        name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Refusal("invalid_client", "the header Authorization cannot be read", 401) from None
    name, secret = unquote_plus(name), unquote_plus(secret)
    if "client_secret" in form or form.get("client_id", name) != name:
        raise Refusal("invalid_request", "the client is named in two ways")
    return name, secret
