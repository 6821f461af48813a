"""`serve deploy` of a changed configuration on the running Ray, under a running stream."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.mock_spec import reply_tokens
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.serve_config import local_config
from tests.conftest import wait_until
from tests.e2e.brain import Brain, check_ids, clean_environment, resumed, text_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def serve_deploy(brain: Brain, folder: Path, config: dict) -> None:
    """As an operator would: Serve's own command, with the dashboard's address and token."""
    path = folder / "deployed.yaml"
    path.write_text(yaml.safe_dump(config))
    data = DataFolder(brain.data)
    address = f"http://127.0.0.1:{data.recall('ports')['single']['dashboard']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(data.secrets / "ray-token")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "serve"), "deploy", str(path), "-a", address],
        env=clean_environment(**token),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def deployment(config: dict, name: str) -> dict:
    return next(found for found in config["applications"][0]["deployments"] if found["name"] == name)


def test_a_changed_configuration_is_rolled_out_under_a_running_stream(brain, work_folder, config, calls):
    catalog = yaml.safe_load(config.read_text())
    before = local_config(brain.port, catalog)
    changed = yaml.safe_load(yaml.safe_dump(catalog))
    changed["providers"][0]["models"].insert(0, {"id": "rolled-out", "upstream": "mock,n=6"})
    after = local_config(brain.port, changed)
    deployment(after, "ConversationHost")["num_replicas"] = 3

    conversations = [brain.conversation() for _ in range(6)]
    streams = [
        brain.stream(conversation, f"rollout {i}", model="mock,n=250,itl=50").deltas(2)
        for i, conversation in enumerate(conversations)
    ]
    serve_deploy(brain, work_folder, after)

    def rolled_out() -> bool:
        answers = [brain.http.get("/v1/models/rolled-out").status_code for _ in range(6)]
        return answers == [200] * 6 and brain.serving("ConversationHost", 3)

    wait_until(rolled_out, 90, 0.5, what="the changed configuration")
    for i, (conversation, stream) in enumerate(zip(conversations, streams, strict=True)):
        refused = 0
        while (answer := brain.send(conversation, "while it moves", model="rolled-out")).status_code == 503:
            refused += 1
            assert refused < 20
        assert answer.status_code == 200, answer.text
        events = resumed(brain, stream, 90)
        check_ids(events)
        assert events[-1]["type"] == "turn.completed"
        assert text_of(events) == "".join(reply_tokens(f"rollout {i}", 250))
        assert calls.of(f"rollout {i}") == 1
        assert len(brain.check(conversation)) == 4
    serve_deploy(brain, work_folder, before)
    wait_until(lambda: len(brain.replicas("ConversationHost")) == 2, 90, 0.5, what="the way back")
    wait_until(lambda: _gone(brain), 60, 0.5)
    for conversation in conversations:
        assert brain.send(conversation, "and back", model="small").status_code == 200
        assert len(brain.check(conversation)) == 6


def _gone(brain: Brain) -> bool:
    try:
        return brain.http.get("/v1/models/rolled-out").status_code == 404
    except httpx.HTTPError:
        return False
