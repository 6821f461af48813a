"""What browsers are told with every answer, and which pages of other origins may ask."""

from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve_app.edge_rules import EdgeRules

Header = tuple[bytes, bytes]
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Of a Content-Security-Policy (CSP level 3): for an answer that is no page."""

PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For a page: what it runs and shows comes from here, in files of its own."""

_REQUEST = (
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "x-conversation-id",
    "x-request-id",
    # what OpenAI's client sends from a browser
    "openai-organization",
    "openai-project",
    "x-stainless-arch",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
)
_ANSWER = (
    "idempotent-replayed",
    "location",
    "retry-after",
    "x-brain-model",
    "x-brain-turn",
    "x-request-id",
    "x-should-retry",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)


def always(rules: EdgeRules) -> tuple[Header, ...]:
    """Headers of every answer that does not set them itself (OWASP, HTTP Security Response Headers Cheat Sheet)."""
    headers = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "content-security-policy": NOTHING,
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
    if rules.hsts:
        headers["strict-transport-security"] = f"max-age={rules.hsts}; includeSubDomains"
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def added(given: Iterable[Header], extra: Iterable[Header]) -> list[Header]:
    """`given`, and what of `extra` it does not have."""
    headers = list(given)
    names = {name for name, _ in headers}
    headers.extend(one for one in extra if one[0] not in names)
    return headers


def shared(app: ASGIApp, rules: EdgeRules) -> ASGIApp:
    """`app` for pages of the origins that the rules name. Never with cookies: a caller is named by a header."""
    if not rules.origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=rules.origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=_REQUEST,
        expose_headers=_ANSWER,
        max_age=600,
    )
