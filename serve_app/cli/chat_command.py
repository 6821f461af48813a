"""`brain chat`: the options; the conversation itself is in `serve_app.cli.chat`."""

from typing import Annotated

import typer


def chat(
    url: Annotated[str, typer.Option(envvar="BRAIN_URL", help="Address of the API.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(envvar="BRAIN_API_KEY", help="API key [default: the local Brain's].", show_default=False),
    ] = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Model that answers.")] = "auto",
) -> None:
    """Talk to the Brain; answers stream as they are written."""
    from serve_app.cli.chat import chat as run

    run(url=url, api_key=api_key or _local_key(), conversation=conversation, model=model)


def _local_key() -> str:
    from serve_app.cli.options import read_settings
    from serve_app.embedded.refusal import Refusal

    path = read_settings().data_folder / "secrets" / "api-key"
    try:
        return path.read_text().strip()
    except OSError:
        raise Refusal("no API key: give one with --api-key or BRAIN_API_KEY") from None
