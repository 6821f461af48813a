"""One frame of a client, and the request that it is: what guards a route guards it, too."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.ingress.context import Visit
from serve_app.ingress.socket.connection import Connection


@dataclass(slots=True)
class Asked:
    socket: Connection
    request: Request
    visit: Visit


def request_of(
    app: Any, credential: str, visit: Visit, path: dict[str, str], key: str | None = None, size: int = 0
) -> Request:
    """`path`: the ids that the path of the route has; `key`: an idempotency key; `size`: of the frame, in bytes."""
    headers = [(b"authorization", b"Bearer " + credential.encode()), (b"content-length", str(size).encode())]
    if key is not None:
        headers.append((b"idempotency-key", key.encode()))
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/ws",
            "query_string": b"",
            "headers": headers,
            "path_params": path,
            "app": app,
            "brain.visit": visit,
        }
    )
