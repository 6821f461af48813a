"""`serve deploy` of a changed configuration on the running Ray, under running streams and under load."""

import copy
from collections.abc import Iterator

import httpx
import pytest
import yaml

from benchmarks.mock_spec import reply_tokens
from tests.conftest import wait_until
from tests.e2e.brain import Brain, check_ids, resumed, text_of
from tests.nodes import trial
from tests.nodes.scenarios import Scenario
from tests.rollouts.scenarios import HOSTS, hosts, user_config
from tests.rollouts.service import Service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def service(brain, work_folder, provider, config) -> Iterator[Service]:
    service = Service(brain, work_folder, provider, yaml.safe_load(config.read_text()), calls=60)
    yield service
    service.rolled(service.config())


def test_a_changed_configuration_is_rolled_out_under_a_running_stream(brain, service, calls):
    changed = copy.deepcopy(service.catalog)
    changed["providers"][0]["models"].insert(0, {"id": "rolled-out", "upstream": "mock,n=6"})
    conversations = [brain.conversation() for _ in range(6)]
    streams = [
        brain.stream(conversation, f"rollout {i}", model="mock,n=250,itl=50").deltas(2)
        for i, conversation in enumerate(conversations)
    ]
    service.deploy(service.config(catalog=changed, replicas={HOSTS: 3}))

    def rolled_out() -> bool:
        answers = [brain.http.get("/v1/models/rolled-out").status_code for _ in range(6)]
        return answers == [200] * 6 and brain.serving(HOSTS, 3)

    wait_until(rolled_out, 90, 0.5, what="the changed configuration")
    for i, (conversation, stream) in enumerate(zip(conversations, streams, strict=True)):

        def taken(conversation=conversation):  # 404: by a host that has not heard of the model yet
            answer = brain.send(conversation, "while it moves", model="rolled-out")
            return None if answer.status_code in (404, 503) else answer

        answer = wait_until(taken, 30, 0.2, what="a host that knows the model")
        assert answer.status_code == 200, answer.text
        events = resumed(brain, stream, 90)
        check_ids(events)
        assert events[-1]["type"] == "turn.completed"
        assert text_of(events) == "".join(reply_tokens(f"rollout {i}", 250))
        assert calls.of(f"rollout {i}") == 1
        assert len(brain.check(conversation)) == 4
    service.deploy(service.config())
    wait_until(lambda: len(brain.replicas(HOSTS)) == 2, 90, 0.5, what="the way back")
    wait_until(lambda: _gone(brain), 60, 0.5)
    for conversation in conversations:
        assert brain.send(conversation, "and back", model="small").status_code == 200
        assert len(brain.check(conversation)) == 6


@pytest.mark.parametrize(
    "scenario",
    [Scenario("hosts-1-2-1", hosts(1, 2, 1), 2.0, strict=True), Scenario("user_config", user_config, 2.0, strict=True)],
    ids=lambda scenario: scenario.name,
)
def test_a_rollout_under_load_loses_nothing(brain, service, scenario):
    front = trial.Front(brain.url, brain.key)
    found = trial.run(service, front, scenario, seed=7, clients=6, told=print)
    assert found.violations == []
    assert (found.figures.failed, found.figures.never) == (0, 0), found.calls
    assert found.figures.operations > 100


def _gone(brain: Brain) -> bool:
    try:
        return brain.http.get("/v1/models/rolled-out").status_code == 404
    except httpx.HTTPError:
        return False
