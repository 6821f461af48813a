"""`brain chat`: the options; the conversation itself is in `serve_app.cli.chat`."""

from typing import Annotated

import typer

from serve_app.cli.options import Data, read_settings
from serve_app.cli.running import ApiKey, Url, service_of


def chat(
    url: Url = None,
    api_key: ApiKey = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Model that answers.")] = "auto",
    data: Data = None,
) -> None:
    """Talk to a running service; answers stream as they are written. Each line of a pipe is one message."""
    from serve_app.cli.chat import chat as run

    address, key = service_of(url, api_key, data)
    folder = (data or read_settings().data).expanduser()
    history = folder / "chat-history" if folder.is_dir() else None
    if not run(address, key, conversation, model, history):
        raise typer.Exit(1)
