"""Turns that call tools: over a real server of tools, with the host or the generation process killed in between."""

import asyncio
import json
from dataclasses import dataclass, field, replace

import pytest

from adapters.allow_list import AllowList
from adapters.guarded_http import Guarded
from adapters.mcp_servers import Endpoint, McpServers
from benchmarks.mock_spec import reply_tokens
from domain.errors import Unavailable
from domain.events import COMPLETED, RESET, replay
from domain.generation import Outcome
from domain.model import parse_catalog
from domain.tool_calls import UNKNOWN_OUTCOME
from domain.tools import Offer, OfferedTool, ToolAnswer, called
from storage.masking import MaskedConversations
from storage.postgres import reading
from storage.reader import PostgresReader
from tests.actors.test_conversations import eventually, text_of
from tests.doubles.mcp_server import serving_tools
from tests.storage.conftest import make_conversation, make_send

CAN = ["chat", "tools"]
REPEATABLE = {"weather", "slow_look"}


@dataclass
class Offered:
    """`domain.tools.Tools` over a server: of its tools those that are named here, in this order."""

    url: str
    names: list = field(default_factory=lambda: ["book"])
    left_out: tuple = ()
    away: bool = False

    def __post_init__(self):
        self.servers = McpServers(Guarded(AllowList.parse("127.0.0.1")))

    async def offered(self, tenant, user, turn_id):
        if self.away:
            raise Unavailable("away")
        return Offer(tuple(self._tool(name) for name in self.names), self.left_out)

    async def call(self, tenant, server, tool, arguments, key, seconds) -> ToolAnswer:
        answer, _ = await self.servers.call(Endpoint(self.url, {}), tool, arguments, key, seconds)
        return answer

    def _tool(self, name):
        shape = {"name": called("s", name), "description": "", "parameters": {"type": "object", "properties": {}}}
        return OfferedTool(
            called("s", name), "mcp_1", "s", name, name in REPEATABLE, {"type": "function", "function": shape}
        )


@pytest.fixture
async def double():
    async with serving_tools() as served:
        yield served


@pytest.fixture
async def tools(world, double):
    models = [
        {
            "id": "calls",
            "upstream": "mock,n=4,tools=1",
            "capabilities": ["chat", "tools"],
            "price_in": 1,
            "price_out": 1,
        },
        {"id": "calls-two", "upstream": "mock,n=4,tools=2", "capabilities": ["chat", "tools"]},
        {"id": "tells", "upstream": "mock,mode=prompt,tools=1,n=2000", "capabilities": ["chat", "tools"]},
        {"id": "slow", "upstream": "mock,n=30,itl=80,tools=1", "capabilities": ["chat", "tools"], "continues": True},
        {"id": "cannot", "upstream": "mock,n=4,tools=1"},
    ]
    given = world.catalog.model_dump(by_alias=True)
    given["providers"][0]["models"] = [*models, *given["providers"][0]["models"]]
    world.catalog = parse_catalog(given)
    for made in (world.llm.current,):
        made._catalog = world.catalog
    world.llm._make = lambda make=world.llm._make: _with(make(), world.catalog)
    offered = world.tools = Offered(double.url)
    yield offered
    await offered.servers.close()


def _with(llm, catalog):
    llm._catalog = catalog
    return llm


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


async def rows(world, key, turn_id):
    async with reading(world.pool, key.tenant) as connection:
        return await connection.fetch(
            "SELECT * FROM brain.tool_calls WHERE turn_id = $1 ORDER BY round, place", turn_id
        )


async def whole_stream(world, key, turn_id):
    """Its events, without a gap, and the same from what is stored."""
    events = await world.events(key.tenant, turn_id)
    last = [event for event in events if event.attempt == events[-1].attempt]
    assert [event.n for event in last] == list(range(1, len(last) + 1))
    stored = await PostgresReader(world.pool).stored_turn(key.tenant, turn_id)
    rebuilt = replay(turn_id, last[-1].attempt, stored.layout, stored.message.content)
    assert [(one.id, one.data.get("text")) for one in rebuilt] == [(one.id, one.data.get("text")) for one in last[:-1]]
    return events


async def test_the_model_calls_a_tool_and_goes_on_with_its_result(world, key, tools, double):
    host = await world.host()
    accepted = await host.send(make_send(key, "two seats", model="calls"))
    events = await whole_stream(world, key, accepted.turn.id)
    said = "".join(reply_tokens("two seats", 4))
    assert events[-1].type == COMPLETED and text_of(events) == said + said
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert ended.message.content == said + said
    trace = await world.trace(key.tenant, accepted.turn.id)
    (told,) = trace["tools"]
    assert (told["server"], told["tool"], told["status"], told["error"]) == ("s", "book", "done", None)
    assert json.loads(told["arguments"]) == {"asked": "two seats"} and told["result"] == "booking number 1"
    assert double.calls["book"] == [f"{accepted.turn.id}/0.0"]
    assert len(trace["attempts"]) == 2
    parts = [one["usage"] for one in trace["attempts"]]
    assert ended.message.usage.total_tokens == sum(one["total_tokens"] for one in parts)
    assert ended.message.cost_usd == pytest.approx(ended.message.usage.total_tokens / 1e6)
    async with reading(world.pool, key.tenant) as connection:
        usage = await connection.fetch("SELECT call, reply FROM brain.usage WHERE turn_id = $1", accepted.turn.id)
    assert sorted(tuple(row) for row in usage) == [(1, True), (2, True)]


async def test_a_model_that_cannot_call_tools_is_offered_none(world, key, tools, double):
    host = await world.host()
    ended = await host.send(replace(make_send(key, "hi", model="cannot"), wait=True))
    assert ended.turn.status == "completed" and not double.calls
    assert "tools" not in world.llm.asked[-1].parameters


async def test_results_are_data_whatever_they_say(world, key, tools, double):
    tools.names = ["read_page"]
    host = await world.host()
    ended = await host.send(replace(make_send(key, "read it", model="tells"), wait=True))
    second = world.llm.asked[-1].messages
    assert [one["role"] for one in second[-2:]] == ["assistant", "tool"]
    lines = second[-1]["content"].splitlines()
    assert lines[1] == '<data kind="tool">' and lines[-1] == "</data>"
    assert all(line.startswith("| ") for line in lines[2:-1]) and "<|im_start|>" not in second[-1]["content"]
    assert ended.turn.status == "completed"


async def test_a_tool_that_fails_or_is_not_there_costs_its_result_only(world, key, tools, double):
    tools.names = ["breaks", "book"]
    host = await world.host()
    ended = await host.send(replace(make_send(key, "try", model="calls-two"), wait=True))
    assert ended.turn.status == "completed"
    told = (await world.trace(key.tenant, ended.turn.id))["tools"]
    assert [(one["tool"], one["status"]) for one in told] == [("breaks", "failed"), ("book", "done")]
    assert "broken" in told[0]["error"] or "breaks" in told[0]["error"]


async def test_a_dead_server_costs_the_tools_not_the_turn(world, key, tools, double):
    tools.url = "http://127.0.0.1:9/mcp"
    host = await world.host()
    ended = await host.send(replace(make_send(key, "dead", model="calls"), wait=True))
    assert ended.turn.status == "completed"
    assert (await world.trace(key.tenant, ended.turn.id))["tools"][0]["status"] == "failed"
    tools.away = True
    ended = await host.send(replace(make_send(key, "unknown", model="calls"), wait=True))
    assert ended.turn.status == "completed" and ended.message.content == "".join(reply_tokens("unknown", 4))
    assert (await world.trace(key.tenant, ended.turn.id))["tools_left_out"]


async def test_what_is_left_out_stands_in_the_trace(world, key, tools, double):
    tools.names, tools.left_out = [], (("shop", "the user has not consented to it"),)
    host = await world.host()
    ended = await host.send(replace(make_send(key, "no", model="calls"), wait=True))
    trace = await world.trace(key.tenant, ended.turn.id)
    assert trace["tools"] == [] and trace["tools_left_out"] == [
        {"server": "shop", "reason": "the user has not consented to it"}
    ]


async def test_calls_and_rounds_are_bounded(world, key, tools, double):
    tools.names = ["weather", "book"]
    host = await world.host(tool_calls=1)
    ended = await host.send(replace(make_send(key, "many", model="calls-two"), wait=True))
    told = (await world.trace(key.tenant, ended.turn.id))["tools"]
    assert [one["status"] for one in told] == ["done", "failed"] and not double.calls["book"]
    host = await world.host(tool_rounds=0)
    ended = await host.send(replace(make_send(key, "none", model="calls"), wait=True))
    assert ended.turn.status == "completed" and (await world.trace(key.tenant, ended.turn.id))["tools"] == []


async def test_a_generation_that_calls_tools_again_and_again_comes_to_an_end(world, key, tools, double):
    """As a process that does not know of rounds answers: with the outcome that it has kept of the first one."""
    host, real, kept = await world.host(tool_rounds=2), world.llm.generate, []

    async def the_same(request):
        kept.append(kept[0] if kept else await real(request))
        return kept[-1]

    host.parts.llm = _With(world.llm, the_same)
    async with asyncio.timeout(20):
        ended = await host.send(replace(make_send(key, "again", model="calls"), wait=True))
    assert ended.turn.status == "completed" and len(kept) == 3 and len(double.calls["book"]) == 2


async def test_a_large_result_is_cut(world, key, tools, double):
    tools.names, double.size = ["large"], 5_000
    host = await world.host(tool_result=1_000)
    ended = await host.send(replace(make_send(key, "much", model="calls"), wait=True))
    assert ended.turn.status == "completed"
    (row,) = await rows(world, key, ended.turn.id)
    assert row["result"].startswith("x" * 1_000) and "4000 characters" in row["result"]


@pytest.mark.parametrize("tool", ["slow_book", "slow_look"])
async def test_after_a_hosts_death_a_call_is_repeated_only_where_it_may_be(world, key, tools, double, tool):
    tools.names = [tool]
    first = await world.host()
    accepted = await first.send(make_send(key, "seat 7", model="calls"))
    await eventually(lambda: _called(double, tool, 1))
    await world.kill(first)
    await world.host()
    if tool == "slow_look":
        await eventually(lambda: _called(double, tool, 2))
    double.released.set()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed" and ended.turn.attempt == 1
    (told,) = (await world.trace(key.tenant, accepted.turn.id))["tools"]
    said = "".join(reply_tokens("seat 7", 4))
    assert ended.message.content == said + said
    await whole_stream(world, key, accepted.turn.id)
    asked = [one for one in world.llm.asked if one.turn_id == accepted.turn.id]  # a host takes up others' turns too
    answer = asked[-1].messages[-1]["content"]
    if tool == "slow_look":
        assert told["status"] == "done" and "looked" in answer
        assert len(set(double.calls[tool])) == 1
    else:
        assert told["status"] == "unknown" and len(double.calls[tool]) == 1 and answer == UNKNOWN_OUTCOME
    assert world.mock.by_user["seat 7"] == 2  # neither generation was made twice


class _With:
    """A language model of which one method is another."""

    def __init__(self, llm, generate):
        self._llm, self.generate = llm, generate

    async def cancel(self, request):
        await self._llm.cancel(request)


def _called(double, tool, times):
    async def look():
        return len(double.calls[tool]) >= times

    return look()


async def test_what_was_done_before_a_hosts_death_counts(world, key, tools, double):
    """One of two calls was done: it is not made again, although it may be."""
    tools.names = ["weather", "slow_book"]
    first = await world.host()
    accepted = await first.send(make_send(key, "both", model="calls-two"))
    await eventually(lambda: _states(world, key, accepted.turn.id, ["done", "started"]))
    await world.kill(first)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed"
    assert [len(double.calls[name]) for name in tools.names] == [1, 1]
    told = (await world.trace(key.tenant, accepted.turn.id))["tools"]
    assert [one["status"] for one in told] == ["done", "unknown"]


async def _states(world, key, turn_id, states):
    return [row["state"] for row in await rows(world, key, turn_id)] == states


async def test_a_takeover_joins_the_right_generation(world, key, tools, double):
    """The host dies while the second generation speaks: it is followed, and no tool is called again."""
    tools.names = ["book"]
    first = await world.host()
    accepted = await first.send(make_send(key, "long", model="slow"))
    whole = 30

    async def in_the_second():
        progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
        return progress.rounds and len(progress.events) > progress.rounds[-1].n + 2

    await eventually(in_the_second, 20)
    await world.kill(first)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    said = "".join(reply_tokens("long", whole))
    assert ended.message.content == said + said and ended.turn.attempt == 1
    assert len(double.calls["book"]) == 1 and world.mock.by_user["long"] == 2
    await whole_stream(world, key, accepted.turn.id)
    async with reading(world.pool, key.tenant) as connection:
        usage = await connection.fetch("SELECT call FROM brain.usage WHERE turn_id = $1", accepted.turn.id)
    assert sorted(row["call"] for row in usage) == [1, 2]
    assert len((await world.trace(key.tenant, accepted.turn.id))["tools"]) == 1


async def test_a_lost_generation_goes_on_within_its_round(world, key, tools, double):
    tools.names = ["book"]
    await world.host()
    host = world.hosts[-1]
    accepted = await host.send(make_send(key, "long", model="slow"))

    async def in_the_second():
        progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
        return progress.rounds and len(progress.events) > progress.rounds[-1].n + 2

    await eventually(in_the_second, 20)
    await world.llm.die()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    said = "".join(reply_tokens("long", 30))
    assert ended.message.content == said + said and len(double.calls["book"]) == 1
    events = await whole_stream(world, key, accepted.turn.id)
    assert RESET not in {event.type for event in events}


async def test_a_lost_generation_that_goes_on_and_then_calls_a_tool_is_told_once(world, key, tools, double):
    host = await world.host()
    accepted = await host.send(make_send(key, "long", model="slow"))

    async def in_the_first():
        progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
        return not progress.rounds and len(progress.events) > 6

    await eventually(in_the_first, 20)
    await world.llm.die()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    said = "".join(reply_tokens("long", 30))
    assert ended.message.content == said + said and len(double.calls["book"]) == 1
    assert not world.llm.asked[-1].prefix
    await whole_stream(world, key, accepted.turn.id)


async def test_who_takes_a_round_over_counts_the_calls_of_those_before(world, key, tools, double):
    """The first host dies between the end of the second generation that calls a tool and its plan."""
    first = await world.host(tool_calls=1)
    accepted = await first.send(make_send(key, "twice", model="slow"))
    await eventually(lambda: _asked(world, 2), 20)
    await world.kill(first)
    await world.llm.die()
    request = world.llm.asked[-1]
    await eventually(lambda: world.journal.claim(request, "another"), 20)
    [call] = [row["call_id"] for row in await rows(world, key, accepted.turn.id)]
    function = {"name": called("s", "book"), "arguments": "{}"}
    outcome = Outcome("completed", "", tool_calls=({"id": call, "type": "function", "function": function},))
    await world.journal.seal(request, "another", outcome)
    await world.host(tool_calls=1)
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed" and len(double.calls["book"]) == 1
    told = await rows(world, key, accepted.turn.id)
    assert [row["state"] for row in told] == ["done", "failed"] and len({row["call_id"] for row in told}) == 2


async def _asked(world, times):
    return len(world.llm.asked) >= times


async def test_another_attempt_is_told_what_was_called_before(world, key, tools, double):
    """The journal is lost with the process: the text is taken back, the calls count."""
    tools.names = ["book"]
    first = await world.host()
    accepted = await first.send(make_send(key, "long", model="slow"))
    await eventually(lambda: _states(world, key, accepted.turn.id, ["done"]), 20)
    await world.kill(first)
    await world.llm.die()
    from redis.asyncio import Redis

    redis = Redis.from_url(world.redis_url)
    await redis.flushdb()
    await redis.aclose()
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed" and ended.turn.attempt > 1
    assert len(double.calls["book"]) == 1
    assert [one["status"] for one in (await world.trace(key.tenant, accepted.turn.id))["tools"]] == ["done"]


async def test_cancelling_does_not_wait_for_a_tool(world, key, tools, double):
    tools.names = ["slow_book"]
    host = await world.host()
    accepted = await host.send(make_send(key, "stop", model="calls"))
    await eventually(lambda: _called(double, "slow_book", 1))
    async with reading(world.pool, key.tenant) as connection:
        await connection.execute("UPDATE brain.turns SET cancel_requested = true WHERE id = $1", accepted.turn.id)
    async with asyncio.timeout(5):
        await host.cancel(key, accepted.turn.id)
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert ended.turn.status == "cancelled" and ended.message.content == "".join(reply_tokens("stop", 4))


async def test_what_is_kept_of_calls_is_masked_as_stored_text_is(world, key, tools, double):
    async def yes(tenant):
        return True

    host = await world.host()
    host.parts.store = MaskedConversations(world.pool, yes)
    tools.names = ["weather"]
    ended = await host.send(replace(make_send(key, "ask ann@example.com", model="calls"), wait=True))
    (row,) = await rows(world, key, ended.turn.id)
    assert "example" not in row["arguments"] + row["result"]
    assert json.loads(row["arguments"])["asked"].startswith("ask ***")
    assert "example" not in json.dumps((await world.trace(key.tenant, ended.turn.id))["tools"])
