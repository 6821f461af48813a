"""In front of Ray Serve's own middleware: request headers that Serve itself would obey are not the client's to set.

Named in `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` as `serve_app.ingress.edge:middlewares`.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from domain.ids import new_id
from serve_app.ingress.heads import SANE_ID

_SERVES_OWN = frozenset((b"x-request-disconnect-disabled", b"x-request-timeout-seconds", b"x-session-id"))
_MULTIPLEXED = b"serve_multiplexed_model_id"


class Edge:
    """Drops those headers, and puts a fresh id in the place of an `x-request-id` that should not be echoed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            kept = [
                (name, value)
                for name, value in scope["headers"]
                if name not in _SERVES_OWN
                and name.replace(b"-", b"_") != _MULTIPLEXED
                and (name != b"x-request-id" or SANE_ID.fullmatch(value))
            ]
            if not any(name == b"x-request-id" for name, _ in kept):
                kept.append((b"x-request-id", new_id("req").encode()))
            if scope["type"] == "websocket":
                kept.append((b"x-request-disconnect-disabled", b"?1"))  # its end is no error, and is ours to see
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    return [Middleware(Edge)]
