"""Where generations run: at the model's own replicas while there are some, else by HostedLLM."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import places
from deployments.handles import answered
from deployments.places import HandleLanguageModel, Place
from deployments.presence import Replicas
from deployments.routers import SessionRouter
from domain.errors import Overloaded, Unavailable
from domain.generation import GenerationRequest, Outcome


class Handle:
    """A deployment's handle. Each call waits for `answer`, a result or an exception."""

    deployment_name = "LocalLLM:tiny"

    def __init__(self, *answers: Any) -> None:
        self.calls: list[tuple[str, GenerationRequest]] = []
        self.sessions: list[str] = []
        self.answers = list(answers)
        self.waiting = asyncio.Event()
        self.generate = SimpleNamespace(remote=lambda request: self._call("generate", request))
        self.cancel = SimpleNamespace(remote=lambda request: self._call("cancel", request))

    def options(self, session_id: str | None = None, **_: Any) -> "Handle":
        if session_id is not None:
            self.sessions.append(session_id)
        return self

    def broadcast(self, name: str, request: GenerationRequest) -> Any:
        self.calls.append((f"{name} at all", request))

        async def results(**_: Any) -> list[Any]:
            if self.answers and isinstance(self.answers[0], Exception):
                raise self.answers[0]
            return [None]

        return SimpleNamespace(results_async=results)

    async def _call(self, name: str, request: GenerationRequest) -> Any:
        self.calls.append((name, request))
        if not self.answers:
            await self.waiting.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.calls]


def request(model: str = "tiny", **more: Any) -> GenerationRequest:
    return GenerationRequest("ten_1", "turn_1", 1, model, [], session="conv_1", **more)


def replicas(running: int) -> Replicas:
    found = Replicas()
    found.tell(running)
    return found


def llm(hosted: Handle, local: Handle, running: Replicas) -> HandleLanguageModel:
    return HandleLanguageModel(hosted, {"tiny": Place(local, running, grace=0.01)})  # type: ignore[arg-type]


async def test_a_local_model_answers_where_it_runs_by_conversation() -> None:
    hosted, local = Handle(), Handle(Outcome("completed", "hi"))
    assert (await llm(hosted, local, replicas(1)).generate(request())).text == "hi"
    assert (local.asked, local.sessions, hosted.asked) == (["generate"], ["ten_1:conv_1"], [])


@pytest.mark.parametrize(
    ("asked", "running"), [(request(), 0), (request("other"), 1), (request("other", chain=("tiny",)), 1)]
)
async def test_everything_else_is_hosted(asked: GenerationRequest, running: int) -> None:
    hosted, local = Handle(Outcome("completed", "hi")), Handle()
    assert (await llm(hosted, local, replicas(running)).generate(asked)).text == "hi"
    assert (local.asked, hosted.sessions) == ([], ["turn_1"])


async def test_the_sides_of_a_turn_run_in_one_process_for_they_share_a_claim() -> None:
    hosted, local = Handle(Outcome("completed", "hi")), Handle()
    await llm(hosted, local, replicas(1)).generate(request(side=0))
    assert (local.asked, hosted.asked) == ([], ["generate"])


async def test_refusals_and_deaths_are_told_as_the_ports_tell_them() -> None:
    async def refuse() -> None:
        raise Overloaded("full")

    refused = await answered(refuse())
    with pytest.raises(Overloaded, match="full"):
        await llm(Handle(), Handle(refused), replicas(1)).generate(request())
    with pytest.raises(Unavailable):
        await llm(Handle(), Handle(RuntimeError("the actor died")), replicas(1)).generate(request())


async def test_a_call_that_no_replica_is_left_for_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait in Serve's queue for the next replica, however long that takes."""
    looked, look = asyncio.Event(), Place._gone

    def watched(place: Place) -> None:
        look(place)
        looked.set()

    monkeypatch.setattr(Place, "_gone", watched)
    running, local = replicas(2), Handle()
    model = llm(Handle(), local, running)
    call = asyncio.create_task(model.generate(request()))
    while not local.asked:
        await asyncio.sleep(0)
    running.tell(1)
    running.tell(0)
    running.tell(1)  # in time
    async with asyncio.timeout(5):
        await looked.wait()
        await asyncio.sleep(0)
        assert not call.done()
        running.tell(0)
        with pytest.raises(Unavailable, match="last replica"):
            await call


@pytest.mark.parametrize("there", [True, False])
async def test_who_joins_looks_in_every_place(there: bool) -> None:
    found, elsewhere = Outcome("completed", "hi"), Outcome("elsewhere")
    hosted, local = Handle(found), Handle(found if there else elsewhere)
    model = llm(hosted, local, replicas(1))
    assert await model.generate(request("other", chain=("tiny",), join=True)) == found
    assert (local.asked, hosted.asked) == (["generate"], [] if there else ["generate"])


async def test_who_joins_and_knows_no_model_looks_everywhere() -> None:
    found = Outcome("completed", "hi")
    hosted, local = Handle(), Handle(found)
    assert await llm(hosted, local, replicas(1)).generate(request("", join=True)) == found
    assert hosted.asked == []


async def test_a_cancel_that_is_not_heard_in_time_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CANCELLING", 0.01)
    with pytest.raises(Unavailable):
        await llm(Handle(), Handle(), replicas(1)).cancel(request())


async def test_a_generation_that_is_held_elsewhere_is_not_begun_again() -> None:
    hosted, local = Handle(), Handle(Outcome("elsewhere"))
    assert (await llm(hosted, local, replicas(1)).generate(request())).ending == "elsewhere"
    assert hosted.asked == []


@pytest.mark.parametrize("local", [Handle, lambda: Handle(TimeoutError())])
async def test_a_cancel_reaches_all_who_may_have_it(local: Any) -> None:
    hosted, there = Handle(None), local()
    await llm(hosted, there, replicas(1)).cancel(request())
    assert (there.asked, hosted.asked) == (["cancel at all"], ["cancel"])


class Known:
    """What a router knows of its replicas' calls."""

    def __init__(self, **calls: int) -> None:
        self.calls = calls

    def get(self, replica: str) -> int | None:
        return self.calls.get(replica)


@pytest.mark.parametrize(
    ("calls", "order"),
    [
        ({}, "abc"),
        ({"a": 3}, "abc"),
        ({"a": 4}, "bca"),
        ({"a": 9, "b": 4}, "cab"),
        ({"a": 4, "b": 4, "c": 9}, "abc"),
    ],
)
async def test_a_full_replicas_conversations_go_to_the_next_ones(
    calls: dict[str, int], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ranked(*_: Any) -> list[list[Any]]:
        return [[SimpleNamespace(replica_id=name)] for name in "abc"]

    monkeypatch.setattr(SessionRouter.__mro__[2], "choose_replicas", ranked)
    monkeypatch.setattr(SessionRouter, "replica_queue_len_cache", Known(**calls))
    router = object.__new__(SessionRouter)
    router._places = 4
    assert "".join(rank[0].replica_id for rank in await router.choose_replicas([])) == order
