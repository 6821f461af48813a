"""`brain chat`: the options; the conversation itself is in `serve_app.cli.chat`."""

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from serve_app.cli.options import Data, read_settings


def chat(
    url: Annotated[
        str | None,
        typer.Option(envvar="BRAIN_URL", help="Address of the service (default: that of `brain up` on this machine)."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="BRAIN_API_KEY", help="API key (default: that of `brain up` on this machine).", show_default=False
        ),
    ] = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Model that answers.")] = "auto",
    data: Data = None,
) -> None:
    """Talk to a running service; answers stream as they are written. Each line of a pipe is one message."""
    from serve_app.cli.chat import chat as run

    settings = read_settings()
    folder = (data or settings.data).expanduser()
    local = f"http://127.0.0.1:{settings.port}"
    key = api_key or _local_key(folder, url)
    history = folder / "chat-history" if folder.is_dir() else None
    if not run(url or _local_url(folder) or local, key, conversation, model, history):
        raise typer.Exit(1)


def _local_key(folder: Path, url: str | None) -> str:
    """The key that `brain up` made; it is sent to no other machine."""
    from serve_app.embedded.plan import LOOPBACK_HOSTS
    from serve_app.embedded.refusal import Refusal

    if url is not None and urlsplit(url).hostname not in LOOPBACK_HOSTS:
        raise Refusal(f"no API key for {url}: give one with --api-key or BRAIN_API_KEY")
    try:
        return (folder / "secrets" / "api-key").read_text().strip()
    except OSError:
        raise Refusal(f"no API key: none is kept in {folder}; give one with --api-key or BRAIN_API_KEY") from None


def _local_url(folder: Path) -> str | None:
    """The address that the last `brain up` on this folder announced, if it is kept there."""
    try:
        url = json.loads((folder / "state.json").read_text()).get("url")
    except (OSError, ValueError, AttributeError):
        return None
    return url if isinstance(url, str) else None
