"""`brain roles`: a tenant's roles on a running service."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from serve_app.cli.calling import Call, Json, all_of, run, show
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url

app = typer.Typer(help="What keys and users may do: roles, and the permissions that they hold.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A role's name.")]
Permissions = Annotated[list[str], typer.Argument(metavar="PERMISSION…", help="As in models:read.")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]


@app.command("list")
def list_command(as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """All roles: those that every tenant has, and the tenant's own."""
    found = run(lambda call: all_of(call, "/roles"), url, api_key, data)
    show(found, as_json, ("name", "description", "built_in", "permissions"), "There are no roles.")


@app.command()
def permissions(as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """All permissions that a role may hold."""
    found = run(lambda call: all_of(call, "/permissions"), url, api_key, data)
    show(found, as_json, ("name", "operators_own"), "There are no permissions.")


@app.command()
def create(
    name: Name,
    permission: Permissions,
    description: Description = "",
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Define a role of permissions that you have yourself."""
    body = {"name": name, "description": description, "permissions": permission}
    run(lambda call: call("POST", "/roles", json=body), url, api_key, data)
    typer.echo(f"the role {name} is defined")


@app.command("set")
def set_command(
    name: Name,
    permission: Permissions,
    description: Description = "",
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Replace what a role may do, for all who have it."""
    body = {"description": description, "permissions": permission}
    run(lambda call: call("PUT", _path(name), json=body), url, api_key, data)
    typer.echo(f"the role {name} is changed; every replica knows within a second")


@app.command("show")
def show_command(name: Name, as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """A role and its permissions."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("GET", _path(name))

    found = run(work, url, api_key, data)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join([found["description"], *found["permissions"]]))


@app.command()
def delete(name: Name, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """Remove a role that no key and no user has."""
    run(lambda call: call("DELETE", _path(name)), url, api_key, data)
    typer.echo(f"the role {name} is removed")


def _path(name: str) -> str:
    return f"/roles/{quote(name, safe='')}"
