"""What commands that talk to the running service share: its calls, one after another, and lists read to their end."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from serve_app.cli.chat_client import Client
from serve_app.cli.options import Data
from serve_app.cli.running import service_of

T = TypeVar("T")
WIDE = 1000  # columns of what is no terminal
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Call = Callable[..., Awaitable[dict[str, Any]]]


def run(
    work: Callable[[Call], Awaitable[T]], url: str | None, api_key: str | None, data: Data, tenant: str | None = None
) -> T:
    """What `work` gives with calls of the service below `/api/v1`; `tenant`: sent as `tenant_id` with each of them.
    Raises `Refusal`."""
    client = Client(*service_of(url, api_key, data), tell=lambda words: typer.echo(words, err=True))

    async def call(method: str, path: str, **options: Any) -> dict[str, Any]:
        if tenant is not None:
            path += f"{'&' if '?' in path else '?'}tenant_id={tenant}"
        return await client.call(method, path, **options)

    async def main() -> T:
        await client.open()
        try:
            return await work(call)
        finally:
            await client.close()

    return asyncio.run(main())


async def all_of(call: Call, path: str, most: int | None = None) -> list[dict[str, Any]]:
    """The entries of a list, to its end or up to `most`."""
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"] and (most is None or len(found) < most):
        after = f"&after={page['last_id']}" if page["last_id"] else ""
        limit = 100 if most is None else min(100, most - len(found))
        page = await call("GET", f"{path}{'&' if '?' in path else '?'}limit={limit}{after}")
        found += page["data"]
    return found


def show(found: Any, as_json: bool, columns: Sequence[str], none: str) -> None:
    """Entries as a table of these fields, or as JSON. Nothing is cut off: in a narrow terminal it goes on below, and
    where nobody looks each entry is a line."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found:
        typer.echo(none)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for one in found:
        table.add_row(*(Text(_cell(one.get(name))) for name in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
