"""`brain keys`: API keys of a tenant on a running service."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import typer

from serve_app.cli.calling import Call, Json, all_of, run, show
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url

app = typer.Typer(help="API keys: a tenant's own, or (with the operator's key) any tenant's.", no_args_is_help=True)
COLUMNS = ("id", "name", "prefix", "role", "scopes", "status", "expires_at", "last_used_at")
Tenant = Annotated[str | None, typer.Option(metavar="ID", help="Another tenant, with the operator's key.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="key_…, as `brain keys list` tells it.")]
Overlap = Annotated[int, typer.Option("--overlap", min=0, max=7 * 86400, help="Seconds that the old key still counts.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str, typer.Option(help="Whose permissions it has.")] = "member",
    scope: Annotated[list[str] | None, typer.Option(help="A permission to narrow it to; may be repeated.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="The user whose key it is.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it ends.")] = None,
    tenant: Tenant = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Make a key, and print it: it is shown this once."""
    body: dict[str, Any] = {"name": name, "role": role, "scopes": scope or None, "user_id": user}
    if days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", _path(tenant), json=body)

    _shown_once([run(work, url, api_key, data)], as_json)


@app.command("list")
def list_command(
    tenant: Tenant = None, as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None
) -> None:
    """The tenant's keys, the newest first, also those that have ended."""
    found = run(lambda call: all_of(call, _path(tenant)), url, api_key, data)
    show(found, as_json, COLUMNS, "There are no keys.")


@app.command()
def revoke(key: KeyId, tenant: Tenant = None, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """End a key; within a second no replica takes it."""
    run(lambda call: call("DELETE", f"{_path(tenant)}/{quote(key, safe='')}"), url, api_key, data)
    typer.echo(f"{key} is revoked")


@app.command()
def rotate(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY_ID", help="One key; all of the tenant's if not given.")
    ] = None,
    overlap: Overlap = 3600,
    tenant: Tenant = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Put new keys in the place of present ones, which end after the overlap, and print them, this once."""
    if key is not None:
        path = f"{_path(tenant)}/{quote(key, safe='')}/rotate"
    else:
        path = "/keys/rotate" if tenant is None else f"/admin/tenants/{quote(tenant, safe='')}/rotate-keys"

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", path, json={"overlap_seconds": overlap})

    made = run(work, url, api_key, data)
    _shown_once(made["data"] if key is None else [made], as_json)


def _shown_once(made: list[dict[str, Any]], as_json: bool) -> None:
    """One key alone on stdout, for `KEY=$(brain keys create …)`; of several each with its name."""
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    elif len(made) == 1:
        typer.echo(f"{made[0]['id']} ({made[0]['role']}): keep it, it is not shown again", err=True)
        typer.echo(made[0]["key"])
    else:
        for one in made:
            typer.echo(f"{one['id']} {one['name']} {one['role']} {one['key']}")


def _path(tenant: str | None) -> str:
    return "/keys" if tenant is None else f"/admin/tenants/{quote(tenant, safe='')}/keys"
