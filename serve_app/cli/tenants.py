"""`brain tenants`: the tenants of a running service, with the operator's key."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from serve_app.cli.calling import Call, Json, all_of, run, show
from serve_app.cli.options import Data
from serve_app.cli.pairs import settings_of
from serve_app.cli.running import ApiKey, Url
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="The tenants of the service, with the operator's key.", no_args_is_help=True)
COLUMNS = ("id", "name", "status", "created_at")
TenantId = Annotated[str, typer.Argument(metavar="ID", help="A tenant, ten_…", show_default=False)]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE…", help="Settings: retention_days=30 limits.requests_per_minute=60 features.recall=false"
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    settings: Pairs = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Make a tenant. `brain keys create --tenant ID` gives it a key."""
    body = {"name": name, "settings": settings_of(settings or [])}

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", "/admin/tenants", json=body)

    made = run(work, url, api_key, data)
    typer.echo(json.dumps(made, indent=2) if as_json else made["id"])


@app.command("list")
def list_command(
    status: Annotated[str | None, typer.Option(help="Only those that are `active` or `suspended`.")] = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """All tenants, the newest first."""

    async def work(call: Call) -> list[dict[str, Any]]:
        return await all_of(call, "/admin/tenants" + (f"?status={quote(status)}" if status else ""))

    show(run(work, url, api_key, data), as_json, COLUMNS, "There are no tenants.")


@app.command("show")
def show_command(
    tenant: TenantId, as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None
) -> None:
    """A tenant and its settings."""
    found = run(lambda call: call("GET", _path(tenant)), url, api_key, data)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name in COLUMNS:
        typer.echo(f"{name}: {found[name]}")
    for name, value in found["settings"].items():
        typer.echo(f"  {name}: {json.dumps(value)}")


@app.command("set")
def set_command(
    tenant: TenantId,
    settings: Pairs = None,
    name: Annotated[str | None, typer.Option(help="What it shall be called.")] = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Change a tenant's settings; what is not named stays, and `NAME=null` puts one back to what it is by default."""
    if not settings and name is None:
        raise Refusal("nothing to set: write NAME=VALUE, or --name")

    async def work(call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {} if name is None else {"name": name}
        if settings:
            present = (await call("GET", _path(tenant)))["settings"]
            body["settings"] = settings_of(settings, present)
        return await call("PATCH", _path(tenant), json=body)

    changed = run(work, url, api_key, data)
    typer.echo(json.dumps(changed, indent=2) if as_json else f"{tenant} is set; every replica knows within seconds")


@app.command()
def suspend(tenant: TenantId, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """Let nothing be reached with a tenant's keys and tokens until it is resumed; nothing is removed."""
    _status(tenant, "suspended", url, api_key, data)
    typer.echo(f"{tenant} is suspended")


@app.command()
def resume(tenant: TenantId, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """Make a suspended tenant active again."""
    _status(tenant, "active", url, api_key, data)
    typer.echo(f"{tenant} is active")


@app.command()
def delete(
    tenant: TenantId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Delete a tenant and everything of its."""

    async def work(call: Call) -> None:
        name = (await call("GET", _path(tenant)))["name"]
        if not yes and not typer.confirm(f"Delete {name} ({tenant}) and everything of its, for good?"):
            raise typer.Exit(1)
        await call("DELETE", _path(tenant))

    run(work, url, api_key, data)
    typer.echo(f"{tenant} is deleted")


def _status(tenant: str, status: str, url: str | None, api_key: str | None, data: Data) -> None:
    run(lambda call: call("PATCH", _path(tenant), json={"status": status}), url, api_key, data)


def _path(tenant: str) -> str:
    return f"/admin/tenants/{quote(tenant, safe='')}"
