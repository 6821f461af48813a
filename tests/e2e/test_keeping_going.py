"""Two providers, one of which dies: turns of `auto` go on with the other, and the service says what it does."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from benchmarks.mock_spec import reply_tokens
from tests.conftest import free_port, wait_until
from tests.e2e.brain import ROOT, Brain, check_ids

pytestmark = pytest.mark.cluster
REST = 2.0  # seconds that a breaker is open


@contextmanager
def provider_at(port: int, folder: Path) -> Iterator[None]:
    ready = folder / f"mock-{port}.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.mock_provider", "--port", str(port), "--key", "k"]
    process = subprocess.Popen([*command, "--ready-file", str(ready)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_until(ready.exists, what="the mock provider")
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def going(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Brain]:
    """A Brain with a second provider that always lives; the first one is the tests' to start."""
    folder = tmp_path_factory.mktemp("going")

    def provider(name, port, models):
        return {
            "name": name,
            "base_url": f"http://127.0.0.1:{port}/v1",
            "key": "${MOCK_KEY}",
            "retries": 1,
            "timeouts": {"connect": 1, "first_token": 3, "idle": 3, "total": 60},
            "breaker": {"failures": 3, "window": 30, "open": REST},
            "models": models,
        }

    best = {"id": "best", "upstream": "mock,n=8", "quality": 0.9}
    spare = {"id": "spare", "upstream": "mock,n=6", "quality": 0.1}
    providers = [
        provider("first", ports[0], [best]),
        provider("second", ports[1], [spare, {"id": "mock*", "continues": True}]),
    ]
    path = folder / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": providers, "routing": {"default": "best", "fallback": ["spare"]}}))
    with provider_at(ports[1], folder):
        environment = {"MOCK_KEY": "k", "HOME": str(folder)}
        brain = Brain(folder / "data", free_port(), ["--config", str(path)], environment).start()
        yield brain
        assert brain.stop() == 0


def turn(brain: Brain, content: str, **fields) -> dict:
    answer = brain.send(brain.conversation(), content, **fields)
    assert answer.status_code == 200, answer.text
    message = answer.json()["message"]
    trace = brain.http.get(f"/api/v1/turns/{message['turn_id']}/trace").json()
    return {"model": message["model"], "text": message["content"], "usage": message["usage"], "trace": trace}


def metric(brain: Brain, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, over all replicas."""
    total = 0.0
    for found, value in re.findall(rf"^{name}{{([^}}]*)}} (\S+)$", brain.http.get("/metrics").text, re.MULTILINE):
        if all(f'{label}="{text}"' in found for label, text in labels.items()):
            total += float(value)
    return total


def test_the_other_provider_answers_while_one_is_dead_and_the_first_is_used_again_once_it_lives(
    going: Brain, ports: tuple[int, int], tmp_path: Path
) -> None:
    with provider_at(ports[0], tmp_path):
        assert turn(going, "while both live")["model"] == "best"

    turns = [turn(going, f"while one is dead {number}") for number in range(12)]
    assert {one["model"] for one in turns} == {"spare"}
    assert all(
        one["text"] == "".join(reply_tokens(f"while one is dead {number}", 6)) for number, one in enumerate(turns)
    )
    before = turns[0]["trace"]["attempts"]
    assert [(each["model"], each["why"], each["status"]) for each in before] == [
        ("best", "first", "error"),
        ("best", "retry", "error"),
        ("spare", "fallback", "ok"),
    ]
    assert "cannot be reached" in before[0]["error"]
    assert [each["usage"] is None for each in before] == [True, True, False]
    errors = [each["error"] or "" for one in turns for each in one["trace"]["attempts"]]
    healthy = [one for one in turns if one["trace"]["attempts"][0]["model"] == "spare"]
    assert any("breaker is open" in error for error in errors) or healthy

    wait_until(lambda: metric(going, "brain_provider_calls_total", why="fallback", model="spare") > 0, what="metrics")
    assert metric(going, "brain_provider_calls_total", provider="first", status="error") >= 2
    assert metric(going, "brain_provider_first_token_seconds_count", provider="second") > 0
    assert metric(going, "brain_provider_wait_seconds_count", provider="second") > 0

    turn(going, "to see it open")
    wait_until(lambda: metric(going, "brain_breaker_state", model="best") > 0, what="the breaker's metric")

    with provider_at(ports[0], tmp_path):
        wait_until(lambda: turn(going, "after it lives again")["model"] == "best", every=0.5, what="its return")
        wait_until(lambda: metric(going, "brain_breaker_state", model="best") == 0, what="the closed breaker")


def test_a_stream_that_breaks_goes_on_from_its_text_without_a_gap(going: Brain) -> None:
    content = "tell me all of it"
    stream = going.stream(going.conversation(), content, model="mock,n=20,itl=20,fault=cut,at=7,times=1").finish()
    check_ids(stream.events)
    assert stream.events[-1]["type"] == "turn.completed", stream.events[-1]
    assert stream.text == "".join(reply_tokens(content, 20))
    assert [event["attempt"] for event in stream.events] == [1] * len(stream.events)
    trace = going.http.get(f"/api/v1/turns/{stream.turn}/trace").json()
    assert [(one["why"], one["status"], one["reply"]) for one in trace["attempts"]] == [
        ("first", "error", True),
        ("continued", "ok", True),
    ]
    usages = [one["usage"] for one in trace["attempts"]]
    assert stream.events[-1]["usage"]["completion_tokens"] == sum(usage["completion_tokens"] for usage in usages)
    assert [one["estimated"] for one in trace["attempts"]] == [True, False]
    wait_until(lambda: metric(going, "brain_continuations_total", model="mock*") == 1, what="the continuation's metric")
