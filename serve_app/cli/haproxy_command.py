"""`brain haproxy PATH`: for the nodes of a cluster, what `brain up` does by itself."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import read_settings
from serve_app.embedded.haproxy import write_program
from serve_app.embedded.refusal import Refusal


def haproxy(
    path: Annotated[Path, typer.Argument(help="the program; name it in RAY_SERVE_HAPROXY_BINARY_PATH")],
) -> None:
    """Write the program that Ray Serve starts as HAProxy: it sends again what is safe to, when a replica ends.

    BRAIN_TRUSTED_PROXIES and BRAIN_BODY_WAIT_S count as they are now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_program(path.absolute(), rules=read_settings().edge)
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}") from None
