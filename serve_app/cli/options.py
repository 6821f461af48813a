"""Options and settings that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings, variable

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of everything that is kept (default: ~/.local/share/brain)."),
]


def read_settings() -> Settings:
    """The settings of the environment; raises `Refusal` naming the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = variable(".".join(str(part) for part in first["loc"]))
        raise Refusal(f"{name} is wrong: {first['msg']}") from None
