"""What a provider can do wrong, seen from the outside."""

import pytest

from benchmarks.mock_spec import reply_tokens
from tests.e2e.brain import PROVIDER_KEY, check_ids

pytestmark = pytest.mark.cluster

FAILING = {
    "400": ("status=400", 502),
    "401": ("status=401", 502),
    "429": ("status=429", 502),
    "500": ("status=500", 502),
    "503": ("status=503", 502),
    "hang before": ("fault=hang_before", 504),
    "hang after": ("n=9,fault=hang_after,at=3", 504),
    "malformed": ("n=9,itl=5,fault=malformed,at=3", 502),
    "cut": ("n=9,itl=5,fault=cut,at=3", 502),
    "truncated": ("n=9,itl=5,fault=truncate,at=3", 502),
    "error event": ("n=9,itl=5,fault=error_event,at=3", 502),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_provider_fails_the_turn_and_keeps_the_message(brain, name):
    options, status = FAILING[name]
    conversation = brain.conversation()
    answer = brain.send(conversation, f"fail {name}", model=f"mock,{options}")
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith("turn_") and answer.headers["x-should-retry"] == "false"
    assert brain.turn(error["param"])["status"] == "failed"
    stored = brain.check(conversation)
    assert stored[0]["content"] == f"fail {name}"
    if "at=3" in options:
        assert stored[1]["status"] == "failed"
        assert stored[1]["content"] == "".join(reply_tokens(f"fail {name}", 9)[:3])
    else:
        assert len(stored) == 1
    assert brain.send(conversation, "and on", model="small").status_code == 200


@pytest.mark.parametrize("name", ["500", "cut"])
def test_a_failing_stream_ends_as_failed_never_as_complete(brain, name):
    conversation = brain.conversation()
    stream = brain.stream(conversation, f"fail {name}", model=f"mock,{FAILING[name][0]}").finish()
    check_ids(stream.events)
    last = stream.events[-1]
    assert last["type"] == "turn.failed" and last["error"]["message"]
    assert brain.events(stream.turn).finish().events == stream.events


@pytest.mark.parametrize("options", ["status=429,retry_after=0,times=1", "status=503,times=2", "status=500,times=1"])
def test_a_provider_that_recovers_is_retried_before_the_first_token(brain, calls, options):
    message = f"again {options}"
    conversation = brain.conversation()
    answer = brain.send(conversation, message, model=f"mock,n=6,{options},per=message")
    assert answer.status_code == 200, answer.text
    assert answer.json()["turn"]["attempt"] == 1 and calls.of(message) > 1


def test_the_providers_key_is_nowhere_to_be_seen(brain):
    conversation = brain.conversation()
    answer = brain.send(conversation, "leak", model="mock,fault=leak")
    assert answer.status_code == 502 and PROVIDER_KEY not in answer.text
    turn = answer.json()["error"]["param"]
    assert PROVIDER_KEY not in brain.http.get(f"/api/v1/turns/{turn}/trace").text
