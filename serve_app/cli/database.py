"""The database that a command works on."""

import asyncio
from collections.abc import Callable

from serve_app.cli.options import Data, read_settings
from serve_app.settings import variable


def with_database(data: Data, work: Callable[[str], None], alone: bool = False) -> None:
    """Call `work` with the URL of the database's owner: the given one, or that of the embedded database.

    The embedded one is that which a running `brain up` holds, or is started for this. `alone`: a running one refuses.
    """
    settings = read_settings()
    if settings.admin_url is not None:
        url = settings.admin_url.get_secret_value()
        asyncio.run(_check(variable("database_admin_url" if settings.database_admin_url else "database_url"), url))
        work(url)
        return
    from serve_app.embedded.folder import DataFolder
    from serve_app.embedded.postgres import OWNER, Postgres
    from serve_app.embedded.refusal import Refusal

    folder = DataFolder(data or settings.data)
    try:
        lock = folder.lock()
    except Refusal:
        if alone:
            raise
        work(Postgres(folder, folder.recall("ports")["single"]["postgres"]).url(OWNER))
        return
    with lock:
        asyncio.run(_started(folder, work))


async def _check(name: str, url: str) -> None:
    from serve_app.embedded.given import check_database

    await check_database(name, url)


async def _started(folder: object, work: Callable[[str], None]) -> None:
    """Start the embedded database of a folder that is held, and end it afterwards."""
    from serve_app.embedded import leftovers, ports
    from serve_app.embedded.folder import DataFolder
    from serve_app.embedded.postgres import OWNER, Postgres

    assert isinstance(folder, DataFolder)
    await asyncio.to_thread(leftovers.end, folder.instance)
    postgres = Postgres(folder, ports.choose(folder)["postgres"])
    try:
        await postgres.start()
        await postgres.ready()
        await postgres.make_database()
        await asyncio.to_thread(work, postgres.url(OWNER))
        await postgres.grant_service()
    finally:
        await postgres.stop()
