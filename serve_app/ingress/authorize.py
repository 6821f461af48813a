"""Where a user signs in and consents, for an OAuth client (RFC 6749, section 4.1, with RFC 7636, 9207 and 9700).

There is no session of the browser: whoever consents gives the password each time, so there is nothing that another site
could use. Nothing is sent to an address that was not registered, letter for letter.
"""

import html
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from domain.ids import is_id, new_id
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.oauth import scopes_of
from serve_app.ingress.oauth_forms import MOST_FIELDS, Refusal, fields_of, form_of, takes_form
from serve_app.ingress.sessions import NO_STORE
from serve_app.ingress.sign_in import signed_in
from storage.attempts import TooManyAttempts
from storage.clients import NewCode, OAuthClient

router = APIRouter(prefix="/api/v1/auth/authorize", tags=["signing in"])
_ASKED = ("response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST = 2000  # characters of a parameter
_PAGES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page", "content": {"text/html": {"schema": {"type": "string"}}}},
    303: {"description": "Back to the client, with a code or an error"},
    "default": {"description": "A page that says why not", "content": {"text/html": {"schema": {"type": "string"}}}},
}


@router.get(
    "",
    response_model=None,
    responses=_PAGES,
    openapi_extra={"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _ASKED]},
)
async def ask(request: Request) -> Response:
    """The page on which a user signs in and consents."""
    identity = identity_of(request)
    try:
        asked = _fields(request)
        client = await _client(identity, asked)
    except Refusal as refusal:
        return _page("This link does not work", f"<p>{html.escape(refusal.description)}</p>", 400)
    try:
        _check(client, asked)
    except Refusal as refusal:
        return _back(identity, asked, {"error": refusal.error, "error_description": refusal.description})
    return _consent(identity, client, asked)


@router.post(
    "", response_model=None, responses=_PAGES, openapi_extra=takes_form(*_ASKED, "email", "password", "decision")
)
async def decide(request: Request) -> Response:
    """The user's decision; with the right password it leads back to the client with a code."""
    identity = identity_of(request)
    try:
        form = await form_of(request)
        asked = {name: form[name] for name in _ASKED if name in form}
        client = await _client(identity, asked)
    except Refusal as refusal:
        return _page("This link does not work", f"<p>{html.escape(refusal.description)}</p>", 400)
    try:
        scopes = _check(client, asked)
        if form.get("decision") != "allow":
            raise Refusal("access_denied", "the user did not consent")
    except Refusal as refusal:
        return _back(identity, asked, {"error": refusal.error, "error_description": refusal.description})
    email, password = form.get("email", ""), form.get("password", "")
    if not (0 < len(email) <= 254 and 0 < len(password) <= 1024):
        return _consent(identity, client, asked, email[:254], "Give your e-mail address and your password.", 401)
    try:
        user = await signed_in(request, identity, client.tenant_id, email, password)
    except TooManyAttempts as error:
        return _consent(identity, client, asked, email, str(error), 429, error.headers)
    except Problem as error:
        return _consent(identity, client, asked, email, str(error), error.status)
    code = "bac_" + secrets.token_urlsafe(32)
    await identity.clients.put_code(
        client.tenant_id,
        NewCode(code, client.id, user.id, asked["redirect_uri"], asked["code_challenge"], scopes, new_id("ses")),
    )
    return _back(identity, asked, {"code": code})


def _fields(request: Request) -> dict[str, str]:
    try:
        query = request.scope["query_string"].decode("ascii")
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refusal("invalid_request", "The link cannot be read.") from None
    fields = fields_of(pairs)
    return {name: fields[name] for name in _ASKED if name in fields}


async def _client(identity: Identity, asked: Mapping[str, str]) -> OAuthClient:
    """Whoever asks, and where an answer may go. Raises `Refusal` where nothing may be sent back."""
    client_id, uri = asked.get("client_id", ""), asked.get("redirect_uri")
    client = await identity.clients.find(client_id) if is_id(client_id, "cli") else None
    if client is None:
        raise Refusal("invalid_client", "The program that sent you here is not known.")
    if uri not in client.redirect_uris:
        raise Refusal("invalid_request", "The address to return to is not one that was registered.")
    return client


def _check(client: OAuthClient, asked: Mapping[str, str]) -> tuple[str, ...] | None:
    """The scopes of a request that is right. Raises `Refusal` with what the client is told."""
    if any(len(value) > _LONGEST for value in asked.values()):
        raise Refusal("invalid_request", "a parameter is too long")
    if asked.get("response_type") != "code":
        raise Refusal("unsupported_response_type", "response_type must be code")
    if "authorization_code" not in client.grants:
        raise Refusal("unauthorized_client", "this client was not made for authorization_code")
    if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.get("code_challenge", "")):
        raise Refusal("invalid_request", "a code_challenge of the method S256 is needed")
    return scopes_of(asked.get("scope"), client.scopes)


def _back(identity: Identity, asked: Mapping[str, str], answer: Mapping[str, str]) -> Response:
    told = {**answer, "iss": identity.tokens.issuer}
    if "state" in asked:
        told["state"] = asked["state"]
    uri = asked["redirect_uri"]
    url = f"{uri}{'&' if '?' in uri else '?'}{urlencode(told)}"
    return RedirectResponse(url, 303, {**NO_STORE, "referrer-policy": "no-referrer"})


def _consent(
    identity: Identity,
    client: OAuthClient,
    asked: Mapping[str, str],
    email: str = "",
    wrong: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    kept = "".join(f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in asked.items())
    may = scopes_of(asked.get("scope"), client.scopes)
    items = "".join(f"<li>{html.escape(name)}</li>" for name in may or ())
    what = f"<ul>{items}</ul>" if may is not None else "<p>everything that you may do yourself</p>"
    days = max(round(identity.sessions.kept / 86_400), 1)
    body = (
        f"<p><strong>{html.escape(client.name)}</strong> wants to act for you, for {days} days at the most or until"
        f" you end it. It may then do:</p>{what}"
        f'<p class="wrong" role="alert">{html.escape(wrong)}</p><form method="post" action="authorize">{kept}'
        '<label>E-mail address <input name="email" type="email" autocomplete="username" required'
        f' value="{html.escape(email)}"></label>'
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>'
        '<button name="decision" value="allow">Sign in and allow</button>'
        '<button name="decision" value="deny" formnovalidate>Refuse</button></form>'
    )
    return _page("Sign in", body, status, _origin(asked["redirect_uri"]), headers)


def _origin(uri: str) -> str:
    """What a form's answer may lead to, as a Content-Security-Policy names it."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def _page(title: str, body: str, status: int, leads_to: str = "", headers: Mapping[str, str] | None = None) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style nonce="{nonce}">body{{font:1rem system-ui;'
        "max-width:26rem;margin:4rem auto;padding:0 1rem}label,button{display:block;width:100%;margin:.7rem 0}"
        "input{width:100%;box-sizing:border-box;padding:.5rem;font:inherit}button{padding:.6rem;font:inherit}"
        f".wrong{{color:#b00020}}</style></head><body><h1>{title}</h1>{body}</body></html>"
    )
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {leads_to}".rstrip()
    return HTMLResponse(
        text,
        status,
        {
            **NO_STORE,
            "content-security-policy": f"{policy}; frame-ancestors 'none'; base-uri 'none'",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            **(headers or {}),
        },
    )
