"""The data folder: one holder, private secrets, ports that stay."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.embedded import ports
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.operator_key import is_weak, operator_key
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.reporter import Reporter


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    yield folder
    runtime = folder.recall("runtime")
    if runtime:
        Path(runtime).rmdir()


def test_one_holder_at_a_time(folder: DataFolder) -> None:
    with folder.lock(), pytest.raises(Refusal, match=f"process {os.getpid()}"):
        DataFolder(folder.path).lock()
    DataFolder(folder.path).lock().close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="--data"):
        DataFolder(tmp_path / "file" / "data")


def test_a_secret_is_made_once_and_is_private(folder: DataFolder) -> None:
    first = folder.secret("a")
    assert len(first) >= 43
    assert DataFolder(folder.path).secret("a") == first
    assert stat.S_IMODE((folder.secrets / "a").stat().st_mode) == 0o600


def test_socket_paths_stay_short_however_deep_the_folder_is(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("x" * 200))
    runtime = folder.runtime()
    assert len(str(runtime)) < 40
    assert DataFolder(folder.path).runtime() == runtime
    runtime.rmdir()


def test_a_copied_folder_shares_no_sockets_with_its_original(folder: DataFolder, tmp_path: Path) -> None:
    original = folder.runtime()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "state.json").write_text((folder.path / "state.json").read_text())
    assert DataFolder(copy).recall("runtime") is None
    assert original.exists()


def test_ports_stay_while_they_are_free(folder: DataFolder) -> None:
    first = ports.choose(folder)
    assert len(set(first.single.values())) == len(ports.SINGLE)
    assert ports.choose(DataFolder(folder.path)) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["redis"]))
        other.listen()
        second = ports.choose(folder)
    assert second["redis"] != first["redis"]
    assert second["postgres"] == first["postgres"]


def test_the_ports_of_others_are_avoided(folder: DataFolder) -> None:
    first = ports.choose(folder)
    second = ports.choose(folder, avoid=(first["gcs"],))
    assert first["gcs"] not in second.single.values()


@pytest.mark.parametrize("key", ["changeme", "secret", "brain-test-password-1", "a" * 40, "changeme-changeme-changeme"])
def test_a_key_that_is_easy_to_guess_is_refused_beyond_loopback(folder: DataFolder, key: str) -> None:
    assert is_weak(key)
    with pytest.raises(Refusal, match="BRAIN_API_KEY"):
        operator_key(folder, key, public=True, reporter=Reporter())
    assert operator_key(folder, key, public=False, reporter=Reporter()) == key


def test_the_made_key_is_strong_and_kept(folder: DataFolder) -> None:
    key = operator_key(folder, None, public=True, reporter=Reporter())
    assert key.startswith("brain_")
    assert len(key) == 49
    assert not is_weak(key)
    assert operator_key(folder, None, public=True, reporter=Reporter()) == key
