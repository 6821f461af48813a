"""Which running service a command talks to: its address and key."""

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from serve_app.cli.options import Data, read_settings

Url = Annotated[
    str | None,
    typer.Option(envvar="BRAIN_URL", help="Address of the service (default: that of `brain up` on this machine)."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="BRAIN_API_KEY", help="API key (default: that of `brain up` on this machine).", show_default=False
    ),
]


def service_of(url: str | None, api_key: str | None, data: Data) -> tuple[str, str]:
    """Its address and the key to use. Raises `Refusal` where there is no key."""
    settings = read_settings()
    folder = (data or settings.data).expanduser()
    key = api_key or _local_key(folder, url)
    return url or _local_url(folder) or f"http://127.0.0.1:{settings.port}", key


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
