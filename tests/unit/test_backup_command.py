"""`brain backup` and `brain restore` on embedded databases: what becomes of secrets and files, and what is refused."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from serve_app.cli.backup import backup, restore
from serve_app.cli.db import upgrade
from serve_app.embedded import ports
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.kept_secrets import kept_secrets
from serve_app.embedded.postgres import Postgres
from serve_app.embedded.refusal import Refusal


@pytest.fixture(scope="module")
def base():
    # Not pytest's folder: its parents are closed to the user that PostgreSQL runs as.
    path = Path(tempfile.mkdtemp(prefix="brain-test-"))
    yield path
    for data in ("data", "other"):
        shutil.rmtree(DataFolder(path / data).recall("runtime") or path, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def data(base):
    """A data folder with a schema and an operator's key."""
    variables = [name for name in os.environ if name.startswith("BRAIN_") and name.endswith("_URL")]
    with pytest.MonkeyPatch.context() as patch:
        for name in variables:
            patch.delenv(name)
        upgrade("head", base / "data")
        folder = DataFolder(base / "data")
        for name in ("api-key", "redis", "ray-token"):
            folder.secret(name)
        yield base / "data"


def test_secrets_of_the_service_come_back_and_servers_get_new_ones(data, base):
    backup(base / "saved", data)
    other = base / "other"
    restore(base / "saved", other)
    was, folder = DataFolder(data), DataFolder(other)
    assert kept_secrets(folder) == kept_secrets(was) == {"api-key": was.secret("api-key")}
    assert (folder.secrets / "api-key").stat().st_mode & 0o777 == 0o600
    assert not (folder.secrets / "ray-token").exists()
    assert folder.secret("postgres-brain_owner") != was.secret("postgres-brain_owner")

    backup(base / "without", data, no_secrets=True)
    (folder.secrets / "api-key").unlink()
    restore(base / "without", other)
    assert kept_secrets(folder) == {}


def test_files_are_replaced_only_on_demand(data, base):
    file = base / "replaced"
    file.write_text("something else")
    with pytest.raises(Refusal, match="--force"):
        backup(file, data)
    assert file.read_text() == "something else"
    backup(file, data, force=True)
    assert file.stat().st_size > 1000 and file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refusal, match="no file"):
        backup(Path("/dev/null"), data, force=True)
    with pytest.raises(Refusal, match="no folder"):
        backup(base / "nowhere" / "saved", data)


def test_what_cannot_be_restored_is_one_line_and_makes_nothing(data, base):
    file = base / "damaged"
    backup(file, data)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Refusal, match=r"^\S+damaged is damaged, or no backup: [^\n]+$"):
        restore(file, base / "never")
    with pytest.raises(Refusal, match="No such file"):
        restore(base / "missing", base / "never")
    with pytest.raises(Refusal, match="there is no database in"):
        backup(base / "empty", base / "never")
    assert not (base / "never").exists() and not (base / "empty").exists()


def test_a_folder_at_work_is_not_restored(data, base):
    backup(base / "held", data)
    with DataFolder(data).lock(), pytest.raises(Refusal, match="is running on"):
        restore(base / "held", data, replace=True)


async def test_a_database_at_work_is_saved(data, base):
    folder = DataFolder(data)
    with folder.lock():
        postgres = Postgres(folder, ports.choose(folder)["postgres"])
        try:
            await postgres.start()
            await postgres.ready()
            await asyncio.to_thread(backup, base / "at-work", data)
        finally:
            await postgres.stop()
    await asyncio.to_thread(restore, base / "at-work", base / "other")
