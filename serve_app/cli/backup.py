"""`brain backup` and `brain restore`: all that is kept, in one file."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.database import with_database
from serve_app.cli.options import Data, read_settings
from serve_app.cli.progress import shown
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings
from storage.backup.manifest import Manifest

File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The backup, a .tar.gz file.")]


def backup(
    file: File,
    data: Data = None,
    no_secrets: Annotated[bool, typer.Option("--no-secrets", help="Leave out the secrets of the data folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Save all tenants, keys, conversations and settings of one moment to FILE, while the service runs or not.

    The database is that of BRAIN_DATABASE_ADMIN_URL or BRAIN_DATABASE_URL, or the embedded one. With the data folder's
    secrets in it, FILE is as secret as the service.
    """
    from serve_app.version import version
    from storage.backup.write import write_backup

    if file.exists() and not (force and file.is_file()):
        raise Refusal(f"{file} is there already{': --force replaces it' if file.is_file() else ', and no file'}")
    if not file.absolute().parent.is_dir():
        raise Refusal(f"there is no folder {file.parent}")
    settings = read_settings()
    folder = data_folder(data, settings, "postgres/data/PG_VERSION")

    def work(url: str) -> None:
        from serve_app.embedded.kept_secrets import kept_secrets

        began = time.monotonic()
        secrets = {} if no_secrets or folder is None else kept_secrets(folder)
        with shown() as progress:
            manifest = write_backup(url, file, version(), secrets, progress)
        typer.echo(
            f"{file}: {_holds(manifest)}{', secrets' if secrets else ''};"
            f" {file.stat().st_size / 1e6:,.1f} MB in {time.monotonic() - began:.1f} s"
        )

    with _told(file):
        with_database(data, work)


def restore(
    file: File,
    data: Data = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the database holds conversations: they are removed.")
    ] = False,
) -> None:
    """Put back what `brain backup` saved to FILE. The service must be stopped.

    The file is verified first; what fails then leaves the database as it was. The schema is brought to this version,
    and no earlier owner of a conversation can write afterwards. Secrets in FILE go to the data folder: the embedded
    database's, or the one that --data names.
    """
    from storage.backup.read import open_backup
    from storage.backup.restore import restore as put_back

    settings = read_settings()
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if redis_url is not None:
        from serve_app.embedded.given import check_redis

        asyncio.run(check_redis("BRAIN_REDIS_URL", redis_url))
    lines = []  # to be said when the bar has gone
    with _told(file), shown() as progress, open_backup(file, progress) as found:
        folder = data_folder(data, settings)

        def work(url: str) -> None:
            from redis import RedisError

            from serve_app.embedded import kept_secrets
            from storage.backup.journals import forget_journals

            began = time.monotonic()
            if folder is not None:
                kept_secrets.check(found.secrets)
            done = put_back(url, found, replace, progress)
            if redis_url is not None:
                try:
                    forget_journals(redis_url, done.tenants)
                except RedisError as error:
                    raise Refusal(f"all was restored, but not Redis ({error}): empty it before a start") from error
            if folder is not None:
                try:
                    kept_secrets.put_back(folder, found.secrets)
                except OSError as error:
                    raise Refusal(f"all was restored but the secrets ({error}): try again with --replace") from error
            manifest = found.manifest
            lines.append(
                f"restored what was at {manifest.at:%Y-%m-%d %H:%M:%S %Z}: {_holds(manifest)};"
                f" schema {done.revision}; {time.monotonic() - began:.1f} s"
            )
            if found.secrets and folder is None:
                lines.append("its secrets were left out: --data names a folder for them")
            if settings.admin_url is not None and redis_url is None:
                lines.append("empty the service's Redis before a start: BRAIN_REDIS_URL names none")

        with_database(data, work, alone=True)
    typer.echo("\n".join(lines))


def data_folder(data: Data, settings: Settings, needed: str | None = None) -> DataFolder | None:
    """The folder whose secrets belong to the database: the embedded one's, or one that was named.

    Raises `Refusal` where an embedded database's folder has not what is `needed`.
    """
    path = data or settings.data
    if settings.admin_url is None:
        if needed is not None and not (path.expanduser() / needed).exists():
            raise Refusal(f"there is no database in {path}: name the data folder with --data")
    elif data is None and "data" not in settings.model_fields_set:
        return None
    return DataFolder(path)


def _holds(manifest: Manifest) -> str:
    return ", ".join(f"{manifest.rows(table):,} {table}" for table in ("tenants", "conversations", "messages"))


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """What goes wrong is one line."""
    import psycopg

    from storage.backup import BackupRefused, Damaged

    try:
        yield
    except Damaged as error:
        raise Refusal(f"{file} is damaged, or no backup: {error}") from error
    except BackupRefused as error:
        raise Refusal(str(error)) from error
    except psycopg.Error as error:
        raise Refusal(f"PostgreSQL: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    except OSError as error:
        raise Refusal(f"{error.filename or file}: {error.strerror or error}") from error
