"""A whole service is lost, and comes back from its backup."""

import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from storage.access import key_hash
from tests.conftest import free_port, wait_until
from tests.e2e.brain import BRAIN, PROVIDER_KEY, Brain, clean_environment
from tests.e2e.test_memory import active, search, settled, vectors_are_messages

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
OTHER = "brain_" + "o" * 43


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="brain-backup-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def command(brain: Brain, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BRAIN), *map(str, arguments), "--data", str(brain.data)],
        env=clean_environment(**brain.environment),
        capture_output=True,
        text=True,
        timeout=90,
        cwd="/",
    )


def destroy(brain: Brain) -> None:
    if brain.database:  # on a server of the system
        brain.sql("DROP SCHEMA brain CASCADE")
        brain.sql("DROP TABLE brain_schema_version")
    shutil.rmtree(brain.data)


def test_a_lost_service_comes_back_from_the_backup_of_its_running_self(folder, config):
    brain = Brain(folder / "data", free_port(), ["--config", str(config)], {"MOCK_KEY": PROVIDER_KEY}).start()
    file = folder / "saved.tar.gz"
    try:
        brain.sql("INSERT INTO brain.tenants (id, name) VALUES ('ten_other', 'other')")
        brain.sql("INSERT INTO brain.api_keys VALUES ('ten_other', 'key_1', 'k', %s, 'admin')", key_hash(OTHER))
        theirs = brain.client(OTHER).post("/api/v1/conversations", json={"title": "theirs"}).json()
        ours = brain.conversation(title="ours")
        for text in ("My parcel has not arrived yet.", "two"):
            assert brain.send(ours, text, model="small").status_code == 200
        saved = brain.check(ours)
        running = brain.conversation()
        stream = brain.stream(running, "in mid-stream", model="mock,n=100,itl=50").deltas(3)

        done = command(brain, "backup", file)
        assert done.returncode == 0, done.stderr
        assert "2 tenants, 3 conversations, 5 messages, secrets" in done.stdout
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stream.finish().events[-1]["type"] == "turn.completed"
        assert brain.send(ours, "after the backup", model="small").status_code == 200
        late = brain.conversation()

        again = command(brain, "backup", file)
        assert again.returncode == 2 and "--force" in again.stderr
        refused = command(brain, "restore", file, "--replace")
        assert refused.returncode == 2 and "stop" in refused.stderr and "Traceback" not in refused.stderr
        assert len(brain.check(ours)) == 6
        lost = active(brain).name
    finally:
        assert brain.stop() == 0
    key = brain.key
    destroy(brain)

    done = command(brain, "restore", file)
    assert done.returncode == 0, done.stderr
    assert "2 tenants, 3 conversations, 5 messages" in done.stdout
    brain.start()
    try:
        assert brain.key == key
        assert brain.check(ours) == saved
        assert brain.http.get(f"/api/v1/conversations/{late}").status_code == 404
        assert brain.client(OTHER).get(f"/api/v1/conversations/{theirs['id']}").json()["title"] == "theirs"
        ended = brain.ended(stream.turn, 90)
        assert ended["status"] == "completed", ended["error"]  # it runs again
        assert len(brain.check(running)) == 2
        wait_until(lambda: settled(brain) and vectors_are_messages(brain), 60, 0.3, "vectors that are the messages")
        assert search(brain, "delivery of my package is late", role="user")[0]["id"] == saved[0]["id"]
        assert active(brain).name != lost, "a space of its own, whatever a store may still hold of the lost one"
        assert not [one for one in (brain.data / "vectors").iterdir() if one.name.startswith(lost)]
        assert brain.send(ours, "three", model="small").status_code == 200
        assert len(brain.check(ours)) == 6
    finally:
        assert brain.stop() == 0
