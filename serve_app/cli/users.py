"""`brain users`: users of a tenant on a running service."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from serve_app.cli.calling import Call, Json, all_of, run, show
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="Users of the tenant whose key it is.", no_args_is_help=True)
COLUMNS = ("id", "email", "name", "role", "status", "last_active_at")
Email = Annotated[str, typer.Argument(help="The e-mail address that the user signs in with.")]
UserId = Annotated[str, typer.Argument(metavar="USER_ID", help="usr_…, as `brain users list` tells it.")]
Role = Annotated[str | None, typer.Option(help="Whose permissions the user has.")]
Name = Annotated[str | None, typer.Option(help="What the user is called.")]
NewPassword = Annotated[
    str,
    typer.Option(
        prompt="Password",
        hide_input=True,
        confirmation_prompt=True,
        envvar="BRAIN_USER_PASSWORD",
        help="Asked for if not given; it does not belong into a shell's history.",
    ),
]
Password = Annotated[
    str, typer.Option(prompt="Password", hide_input=True, envvar="BRAIN_USER_PASSWORD", help="Asked for if not given.")
]


@app.command()
def create(
    email: Email,
    password: NewPassword,
    role: Role = "member",
    name: Name = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Make a user, and print its id."""
    body = {"email": email, "password": password, "role": role, "name": name}

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", "/users", json=body)

    made = run(work, url, api_key, data)
    typer.echo(json.dumps(made, indent=2) if as_json else made["id"])


@app.command("list")
def list_command(
    role: Role = None,
    status: Annotated[str | None, typer.Option(help="active or disabled")] = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """The tenant's users, the newest first."""
    wanted = "&".join(f"{key}={quote(value, safe='')}" for key, value in (("role", role), ("status", status)) if value)
    found = run(lambda call: all_of(call, f"/users?{wanted}" if wanted else "/users"), url, api_key, data)
    show(found, as_json, COLUMNS, "There are no users.")


@app.command("set")
def set_command(
    user: UserId,
    role: Role = None,
    status: Annotated[str | None, typer.Option(help="`disabled` signs the user out; `active`")] = None,
    name: Name = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Change a user; it counts at once."""
    fields = {key: value for key, value in (("role", role), ("status", status), ("name", name)) if value is not None}
    if not fields:
        raise Refusal("name what to change: --role, --status or --name")

    async def work(call: Call) -> dict[str, Any]:
        return await call("PATCH", _path(user), json=fields)

    made = run(work, url, api_key, data)
    typer.echo(f"{user}: {made['role']}, {made['status']}")


@app.command("sign-in")
def sign_in(
    email: Email,
    password: Password,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Sign a user in, and print its access token: `TOKEN=$(brain users sign-in ada@example.com)`."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", "/auth/login", json={"email": email, "password": password})

    told = run(work, url, api_key, data)
    typer.echo(json.dumps(told, indent=2) if as_json else told["access_token"])


@app.command("sign-out")
def sign_out(user: UserId, url: Url = None, api_key: ApiKey = None, data: Data = None) -> None:
    """End all that a user has open; within a second no replica takes its tokens."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("DELETE", f"{_path(user)}/sessions")

    typer.echo(f"{run(work, url, api_key, data)['ended']} sign-ins of {user} have ended")


@app.command()
def delete(
    user: UserId,
    erase: Annotated[bool, typer.Option("--erase", help="Delete the user's conversations too.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Remove a user; conversations stay as nobody's unless they are erased."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("DELETE", f"{_path(user)}{'?erase=true' if erase else ''}")

    told = run(work, url, api_key, data)
    count = told["conversations_deleted"] if erase else told["conversations_kept"]
    typer.echo(f"{user} is gone; {count} conversations were {'deleted' if erase else 'kept'}")


def _path(user: str) -> str:
    return f"/users/{quote(user, safe='')}"
