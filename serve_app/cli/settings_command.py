"""`brain settings`: every variable, what it is for, and what it is without being set."""

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from serve_app.settings import Settings, variable


def settings() -> None:
    """List the BRAIN_* environment variables, their defaults and meanings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Variable", "Default", "Meaning"):
        table.add_column(title, overflow="fold")
    for name, field in Settings.model_fields.items():
        default = field.default
        text = "" if default is None or isinstance(default, SecretStr) else str(default)
        table.add_row(variable(name), text, field.description or "")
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
