"""`brain db`: the schema's versions."""

from typing import Annotated

import typer

from serve_app.cli.database import with_database
from serve_app.cli.options import Data, read_settings

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Version to reach.")] = "head",
    data: Data = None,
) -> None:
    """Bring the schema to a version (BRAIN_DATABASE_ADMIN_URL, BRAIN_DATABASE_URL, or the embedded database)."""
    from storage import migrations

    with_database(data, lambda url: migrations.upgrade(url, revision))


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Version to go back to; `base` removes everything.")],
    data: Data = None,
) -> None:
    """Take the schema back to an earlier version."""
    from storage import migrations

    with_database(data, lambda url: migrations.downgrade(url, revision))


@app.command()
def check(data: Data = None) -> None:
    """Say whether this code may run on the database's schema; fails with what to do where it may not."""
    from serve_app.embedded.refusal import Refusal
    from storage import compatibility

    def work(url: str) -> None:
        try:
            typer.echo(f"schema {compatibility.check_schema(url)}")
        except compatibility.IncompatibleSchema as error:
            raise Refusal(str(error)) from error

    with_database(data, work)


@app.command()
def fence(data: Data = None) -> None:
    """Take every conversation from its owner: after the database was put back to an earlier moment, before a start."""
    from storage.fence import fence

    with_database(data, lambda url: typer.echo(f"{fence(url)} conversations taken from their owners"))


@app.command()
def sql(revision: Annotated[str, typer.Argument(help="Version to reach.")] = "head") -> None:
    """Print the SQL that `upgrade` would run on an empty database."""
    from storage import migrations

    typer.echo(migrations.offline_sql(revision))


@app.command()
def bootstrap(data: Data = None) -> None:
    """Make the operator's tenant and key: the key in BRAIN_API_KEY, or a new one, which is printed once.

    `brain up` does this by itself; on a cluster it is done once, after `upgrade`. An operator's key with another value
    is revoked.
    """
    import secrets

    from serve_app.embedded.folder import DataFolder
    from serve_app.embedded.master_key import master_key
    from serve_app.embedded.operator_key import is_weak
    from serve_app.embedded.refusal import Refusal
    from storage import bootstrap
    from storage.access import API_KEYS

    settings = read_settings()
    given = settings.api_key
    key = given.get_secret_value() if given else f"brain_{secrets.token_urlsafe(32)}"
    if is_weak(key):
        raise Refusal("BRAIN_API_KEY is easy to guess: use 32 random characters or more, or none: one is made")

    try:
        if settings.admin_url is None:
            keys, _ = master_key(DataFolder(data or settings.data), settings)
        else:
            keys = settings.master_keys
    except ValueError as error:
        raise Refusal(str(error)) from None
    pepper = keys.derived(API_KEYS)[0]

    def work(url: str) -> None:
        tenant, _ = bootstrap.bootstrap(url, key, pepper=pepper)
        typer.echo(f"tenant {tenant}" + ("" if given else f"\nkey    {key}"))

    with_database(data, work)
