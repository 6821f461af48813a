"""`/widget.js`, and the chat that it puts into a frame: files, and a page that says where it may stand."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from domain.channels import Channel
from domain.errors import NotFound, Unavailable
from domain.ids import is_id
from domain.widget import WidgetSettings
from serve_app.ingress.parts import parts_of
from storage.channels import PostgresChannels

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
    found = await widget_of(request, request.path_params["channel_id"])
    settings = WidgetSettings.model_validate(found.settings)
    headers = {"content-security-policy": _PAGE.format(" ".join(settings.origins) or "'none'")}
    return FileResponse(_FILES / "frame.html", media_type="text/html", headers=headers)


def channels_of(request: Request) -> PostgresChannels:
    found = parts_of(request).outward
    if found is None:
        raise Unavailable("there are no channels here")
    return found.bindings


async def widget_of(request: Request, channel_id: str) -> Channel:
    """An active widget by its id, which is no secret. Raises `NotFound`."""
    found = await channels_of(request).found(channel_id) if is_id(channel_id, "chn") else None
    if found is None or found.kind != "widget" or not found.active:
        raise NotFound("there is no such widget")
    return found


ROUTES = (
    Route("/widget.js", loader),
    Route("/widget/assets/{name}", asset),
    Route("/widget/{channel_id}", frame),
)
