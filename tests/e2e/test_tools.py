"""Tools in turns, and the service as a server of tools, from the outside; hosts are killed while a tool is called."""

import asyncio
import json
import subprocess
import sys

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.mock_spec import reply_tokens
from domain.ids import new_id
from tests.conftest import wait_until
from tests.e2e.brain import ROOT, check_ids, clean_environment, resumed, text_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


class Double:
    """A server of tools in a process of its own."""

    def __init__(self, url):
        self.url, self.base = url, url.removesuffix("/mcp")

    def calls(self, tool):
        return httpx.get(f"{self.base}/calls").json().get(tool, [])

    def release(self):
        httpx.post(f"{self.base}/release")


@pytest.fixture
def double():
    command = [sys.executable, "-m", "tests.doubles.mcp_server"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env=clean_environment(PYTHONPATH=str(ROOT)), text=True
    ) as process:
        yield Double(json.loads(process.stdout.readline())["url"])
        process.kill()


@pytest.fixture
def registered(brain, double):
    """Registers the double with one allowed tool; it is removed after the test."""
    made = []

    def register(tool, **fields):
        body = {"name": f"double-{new_id('mcp')[-8:]}", "url": double.url, "allow": [tool], **fields}
        answer = brain.http.post("/api/v1/tools/servers", json=body)
        assert answer.status_code == 201 and tool in answer.json()["tools"], answer.text
        made.append(answer.json()["id"])
        return answer.json()

    yield register
    for server in made:
        brain.http.delete(f"/api/v1/tools/servers/{server}")


def offered(brain, message, server, field):
    """Send until the hosts have heard of the server: they believe what they know for a second or two."""

    def sent():
        answer = brain.send(brain.conversation(), message, model="tooled").json()
        trace = brain.http.get(f"/api/v1/turns/{answer['turn']['id']}/trace").json()
        return (answer, trace) if server["name"] in {told["server"] for told in trace[field]} else None

    return wait_until(sent, 60, 0.5, what="the tools")


def whole(message, n=2):
    return "".join(reply_tokens(message, n)) * 2


def test_a_turn_calls_a_tool_and_tells_what_it_gave(brain, double, registered):
    server = registered("weather")
    answer, trace = offered(brain, "in Rome", server, "tools")
    assert answer["message"]["content"] == whole("in Rome")
    (told,) = trace["tools"]
    assert (told["tool"], told["status"]) == ("weather", "done")
    assert told["result"] == "It is sunny: in Rome"


def test_without_consent_no_tool_is_offered_and_the_trace_says_why(brain, double, registered):
    server = registered("weather", consent="user")
    _, trace = offered(brain, "in Ulm", server, "tools_left_out")
    assert trace["tools"] == []
    assert trace["tools_left_out"] == [{"server": server["name"], "reason": "the user has not consented to it"}]
    assert double.calls("weather") == []


@pytest.mark.parametrize("tool", ["slow_book", "slow_look"])
def test_after_the_death_of_the_hosts_a_call_is_repeated_only_where_it_may_be(brain, double, registered, tool):
    registered(tool)
    message = f"{tool} dies"

    def called(turn):
        return [key for key in double.calls(tool) if key.startswith(turn)]

    def begun():
        stream = brain.stream(brain.conversation(), message, model="tooled").deltas(1)
        try:
            wait_until(lambda: called(stream.turn), 8, 0.1, what="the call")
        except AssertionError:
            return None  # the hosts had not heard of the server: this turn ends without it
        return stream

    wait_until(lambda: brain.serving("ConversationHost", 2), 90, 0.5, what="the hosts")
    stream = wait_until(begun, 90, 0.5, what="a turn that calls the tool")
    for host in brain.replicas("ConversationHost"):
        host.kill()
    if tool == "slow_look":
        wait_until(lambda: len(called(stream.turn)) == 2, 120, what="the repetition")
        double.release()
    events = resumed(brain, stream, 90)
    check_ids(events)
    assert events[-1]["type"] == "turn.completed" and text_of(events) == whole(message)
    trace = brain.http.get(f"/api/v1/turns/{stream.turn}/trace").json()
    (told,) = trace["tools"]
    assert len(set(called(stream.turn))) == 1  # one call, by its key, however often it was made
    if tool == "slow_look":
        assert told["status"] == "done"
    else:
        assert told["status"] == "unknown" and len(called(stream.turn)) == 1


def test_the_official_client_asks_the_service(brain):
    async def asked():
        headers = {"Authorization": f"Bearer {brain.key}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"{brain.url}/mcp", http_client=http), cache=None) as client,
        ):
            tools = {tool.name for tool in (await client.list_tools()).tools}
            return tools, await client.call_tool("ask", {"message": "by protocol", "model": "small"})

    tools, result = asyncio.run(asked())
    assert tools == {"ask", "search_conversations", "find_products"}
    assert result.structured_content["reply"] == "".join(reply_tokens("by protocol", 8))
    assert len(brain.check(result.structured_content["conversation_id"])) == 2
