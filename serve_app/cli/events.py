"""`brain events`: a tenant's events as they come; and the operator's topics, dead letters and replays."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from serve_app.cli.chat_client import Client
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url, service_of

app = typer.Typer(help="Events that leave the service.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TopicName = Annotated[str, typer.Argument(help="One of `brain events topics`.")]
PAGE = 100
AGAIN = 1.0  # seconds until a broken stream is opened anew


@app.command()
def tail(
    topics: Annotated[str, typer.Option(help="Types, as message.received,turn.*")] = "*",
    conversation: Annotated[str | None, typer.Option(help="Of this conversation alone.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From then on (UTC); from now on if not given.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.")] = None,
    message: Annotated[bool, typer.Option("--message", help="With the messages as they are stored.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Print the tenant's events as they come, one JSON object a line."""
    query: dict[str, Any] = {"topics": topics, "conversation_id": conversation, "seconds": seconds}
    query |= {"since": None if since is None else f"{since.isoformat()}Z", "include": "message" if message else None}
    client = _client(url, api_key, data)
    asyncio.run(_tail(client, {name: value for name, value in query.items() if value is not None}))


@app.command()
def topics(as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """All topics, what each holds, and how far its groups are; with the operator's key."""

    async def read(client: Client) -> list[dict[str, Any]]:
        listed = (await client.call("GET", "/admin/events/topics"))["data"]
        return [await client.call("GET", f"/admin/events/topics/{quote(one['name'])}") for one in listed]

    found = _run(read, url, api_key, data)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("topic", "types", "events", "dead letters", "groups (pending)")
    for one in found:
        groups = ", ".join(f"{group['name']} ({group['pending']})" for group in one["groups"])
        table.add_row(one["name"], " ".join(one["patterns"]), str(one["length"]), str(one["dead_letters"]), groups)
    Console().print(table)


@app.command()
def dead(
    topic: TopicName,
    redrive: Annotated[bool, typer.Option("--redrive", help="Hand all of them to their groups again.")] = False,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """The events that groups of a topic gave up; with the operator's key."""
    path = f"/admin/events/topics/{quote(topic, safe='')}/dead"

    async def read(client: Client) -> tuple[list[dict[str, Any]], int]:
        found: list[dict[str, Any]] = []
        more, sent = True, 0
        while more:
            after = f"&after={found[-1]['id']}" if found else ""
            page = await client.call("GET", f"{path}?limit={PAGE}{after}")
            found, more = found + page["data"], page["has_more"]
        for start in range(0, len(found) if redrive else 0, PAGE):
            ids = [one["id"] for one in found[start : start + PAGE]]
            sent += (await client.call("POST", f"{path}/redrive", json={"ids": ids}))["count"]
        return found, sent

    found, sent = _run(read, url, api_key, data)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        table = Table("id", "group", "type", "event", "tries", "error")
        for one in found:
            event = one["event"]
            table.add_row(one["id"], one["group"], event["type"], event["id"], str(one["deliveries"]), one["error"])
        Console().print(table)
    if redrive:
        typer.echo(f"{sent} sent again", err=as_json)


@app.command()
def replay(
    topic: TopicName,
    group: Annotated[str, typer.Argument(help="The group that is handed them again.")],
    since: Annotated[datetime, typer.Argument(help="From then on (UTC), as 2026-01-31T12:00:00.")],
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Hand a group again what a topic has from a time on; with the operator's key."""
    path = f"/admin/events/topics/{quote(topic, safe='')}/groups/{quote(group, safe='')}/replay"
    body = {"since": f"{since.isoformat()}Z"}
    _run(lambda client: client.call("POST", path, json=body), url, api_key, data)
    typer.echo(f"{group} is handed again what {topic} has since {since.isoformat()}")


async def _tail(client: Client, query: dict[str, Any]) -> None:
    await client.open()
    last: str | None = None
    try:
        while True:
            after = {} if last is None else {"after": last}
            response = await client.download("GET", f"/events?{urlencode({**query, **after})}")
            try:
                async for line in response.content:
                    if line.startswith(b"id: "):
                        last = line[4:].strip().decode()
                    elif line.startswith(b"data: "):
                        typer.echo(line[6:].strip().decode())
            except (aiohttp.ClientError, TimeoutError, OSError):
                typer.echo("the stream broke: it is opened again", err=True)
            finally:
                response.release()
            if "seconds" in query:
                return
            await asyncio.sleep(AGAIN)
    finally:
        await client.close()


def _client(url: str | None, api_key: str | None, data: Data) -> Client:
    return Client(*service_of(url, api_key, data), tell=lambda words: typer.echo(words, err=True))


def _run(work: Any, url: str | None, api_key: str | None, data: Data) -> Any:
    """Raises `Refusal`."""
    client = _client(url, api_key, data)

    async def main() -> Any:
        await client.open()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(main())
