"""The `brain` command."""

import sys
from typing import Annotated

import typer

from serve_app.cli import (
    audit,
    backup,
    bench,
    caches,
    chat_command,
    data,
    db,
    events,
    haproxy_command,
    intents,
    keys,
    outbox,
    reindex,
    roles,
    route,
    secrets,
    seed,
    settings_command,
    tenants,
    up,
    users,
)
from serve_app.embedded.refusal import Refusal

app = typer.Typer(
    name="brain",
    help="The Brain: a multi-tenant chat service on Ray Serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("chat")(chat_command.chat)
app.add_typer(intents.app, name="intents")
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(roles.app, name="roles")
app.command("audit")(audit.audit)
app.command("seed")(seed.seed)
app.add_typer(users.app, name="users")
app.add_typer(caches.app, name="caches")
app.add_typer(db.app, name="db")
app.add_typer(data.app, name="data")
app.command("verify-receipt")(data.verify_receipt)
app.add_typer(secrets.app, name="secrets")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.add_typer(outbox.app, name="outbox")
app.add_typer(events.app, name="events")
app.command("reindex")(reindex.reindex)
app.add_typer(route.app, name="route")
app.command("haproxy")(haproxy_command.haproxy)
app.command("settings")(settings_command.settings)
app.command("bench", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench.bench)
app.command("verify", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench.verify)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"brain {version('chat-brain')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The Brain: a multi-tenant chat service on Ray Serve."""


def main() -> None:
    """Run the command. What the user can solve is one line on stderr and exit code 2."""
    try:
        app()
    except Refusal as refusal:
        print(f"brain: {refusal}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
