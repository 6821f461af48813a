"""`brain caches`: what the replicas of a running service remember."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serve_app.cli.chat_client import Client
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url, service_of

app = typer.Typer(help="What the service remembers; with the operator's key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """All caches, with the figures of the replica that answers."""
    found = _call("GET", "/admin/caches", url, api_key, data)["data"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("cache", "entries", "hits", "misses", "evicted")
    for one in found:
        entries = "" if one["entries"] is None else str(one["entries"])
        table.add_row(one["name"], entries, *(str(one[name]) for name in ("hits", "misses", "evicted")))
    Console().print(table)


@app.command()
def flush(
    name: Annotated[str, typer.Argument(help="One of `brain caches list`.")],
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Make every replica forget what is in a cache."""
    _call("POST", f"/admin/caches/{name}/flush", url, api_key, data)
    typer.echo(f"{name} is flushed")


def _call(method: str, path: str, url: str | None, api_key: str | None, data: Data) -> dict[str, Any]:
    """Raises `Refusal`."""
    client = Client(*service_of(url, api_key, data), tell=lambda words: typer.echo(words, err=True))

    async def main() -> dict[str, Any]:
        await client.open()
        try:
            return await client.call(method, path)
        finally:
            await client.close()

    return asyncio.run(main())
