"""`brain secrets`: what the database keeps sealed, after the master key was replaced."""

import typer

from serve_app.cli.database import with_database
from serve_app.cli.options import Data, read_settings
from serve_app.cli.progress import counted
from serve_app.embedded.refusal import Refusal
from storage.sealing import MasterKeys

app = typer.Typer(help="Secrets that the database keeps sealed.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Secrets that the database keeps sealed."""


@app.command()
def rotate(data: Data = None) -> None:
    """Seal all secrets under the present master key: the first of BRAIN_MASTER_KEY, which names the old one behind it.

    May be run again at any time. Says what still needs the old master key.
    """
    keys = _keys(data)
    with_database(data, lambda url: _rotate(url, keys))


def _keys(data: Data) -> MasterKeys:
    from serve_app.embedded.folder import DataFolder
    from serve_app.embedded.master_key import master_key

    settings = read_settings()
    try:
        if settings.admin_url is None:
            return master_key(DataFolder(data or settings.data), settings)[0]
        return settings.master_keys
    except ValueError as error:
        raise Refusal(str(error)) from None


def _rotate(url: str, keys: MasterKeys) -> None:
    from storage.resealing import reseal

    with counted("secrets", 0, 0) as advance:
        found = reseal(url, keys, lambda done, total: advance(1))
    typer.echo(f"{found.sealed} secrets sealed anew, {found.already} were already")
    for name in found.lost:
        typer.echo(f"no master key at hand opens {name}: make it anew", err=True)
    if found.old_keys:
        typer.echo(
            f"{found.old_keys} API keys are still under the old master key: each moves where it is used;"
            " keep the old master key until this says none, or make those keys anew"
        )
    else:
        typer.echo("no API key is under the old master key: it may be taken out of BRAIN_MASTER_KEY")
    if found.bare_keys:
        typer.echo(f"{found.bare_keys} API keys are from before there was a master key: they go on, without one")
    if found.lost:
        raise typer.Exit(1)
