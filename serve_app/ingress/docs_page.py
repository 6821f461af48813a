"""`/docs`: Swagger UI from an installed package, so that the page asks no other site and runs no script in its text."""

from importlib.util import find_spec
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from serve_app.ingress.guards import PAGE

_OWN = Path(__file__).parent / "docs"
_DAY = {"cache-control": "public, max-age=86400"}
_PACKAGED = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")


async def page(request: Request) -> Response:
    headers = {"content-security-policy": PAGE, "cross-origin-opener-policy": "same-origin"}
    return FileResponse(_OWN / "page.html", media_type="text/html", headers=headers)


async def asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "start.js":
        return FileResponse(_OWN / name, headers=_DAY)
    if name not in _PACKAGED:
        raise HTTPException(404)
    return FileResponse(_packaged() / name, headers=_DAY)


def _packaged() -> Path:
    spec = find_spec("fastapi_offline")  # it is not imported: only its files are needed
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "static"


ROUTES = (Route("/docs", page), Route("/docs/{name}", asset))
