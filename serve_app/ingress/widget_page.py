"""`/widget.js`, and the chat that it puts into a frame: files without state, and a page that says where it may stand."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from domain.widget import WidgetSettings

_FILES = Path(__file__).parent / "widget"
_ASSETS = {"frame.css": "text/css", "frame.js": "text/javascript", "view.js": "text/javascript"}
_ASSETS["connection.js"] = "text/javascript"
_HOUR = "public, max-age=3600"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors {}"
)


async def loader(request: Request) -> Response:
    """The script of the one tag: any page may load it, it holds nothing."""
    headers = {"cache-control": _HOUR, "cross-origin-resource-policy": "cross-origin"}
    return FileResponse(_FILES / "loader.js", media_type="text/javascript", headers=headers)


async def asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_FILES / name, media_type=_ASSETS[name], headers={"cache-control": _HOUR})


async def frame(request: Request) -> Response:
    """The chat of one widget. Browsers show it in a frame on pages of the widget's origins alone."""
    found = await request.app.state.parts.widgets.find(request.path_params["channel_id"])
    settings = WidgetSettings.model_validate(found.settings)
    headers = {"content-security-policy": _PAGE.format(" ".join(settings.origins) or "'none'")}
    return FileResponse(_FILES / "frame.html", media_type="text/html", headers=headers)


ROUTES = (
    Route("/widget.js", loader),
    Route("/widget/assets/{name}", asset),
    Route("/widget/{channel_id}", frame),
)
