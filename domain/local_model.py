"""A model that this service runs itself with vLLM: the `vllm` part of a model in the catalog."""

import re
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

_ADAPTER = re.compile(r"^[\w.-]{1,128}$")
OURS = frozenset(
    ("model", "served_model_name", "tensor_parallel_size", "enable_prefix_caching", "enable_lora", "max_lora_rank")
)
"""Engine arguments that have an option of their own below."""


class Part(BaseModel):
    model_config = {"extra": "forbid"}


class Scaling(Part):
    """How many replicas serve the model. `min_replicas` 0: none while nobody asks; the first answer then waits for one.

    Delays in seconds.
    """

    min_replicas: int = Field(1, ge=0, le=1024)
    max_replicas: int = Field(1, ge=1, le=1024)
    target_ongoing_requests: float = Field(16, gt=0, description="a replica, before another one is started")
    upscale_delay_s: float = Field(10, ge=0)
    downscale_delay_s: float = Field(600, ge=0)
    downscale_to_zero_delay_s: float | None = Field(None, ge=0, description="from one replica to none, if it differs")

    @model_validator(mode="after")
    def in_order(self) -> "Scaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class Lora(Part):
    """LoRA adapters, by tenant: a tenant named here is answered with its adapter, every other one by the bare model."""

    adapters: dict[str, str] = Field({}, description="tenant id: folder of the adapter, the same on every node")
    max_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    max_loaded: int = Field(8, ge=1, le=256, description="adapters in a replica's memory at once")

    @field_validator("adapters")
    @classmethod
    def named_safely(cls, adapters: dict[str, str]) -> dict[str, str]:
        for tenant, folder in adapters.items():
            if not _ADAPTER.match(tenant):
                raise ValueError(f"{tenant!r} is not a tenant's id")
            if not folder.startswith("/"):
                raise ValueError(f"the adapter of {tenant!r} must be an absolute folder")
        return adapters


class VllmOptions(Part):
    """How vLLM runs one model: https://docs.ray.io/en/latest/serve/llm/ and https://docs.vllm.ai.

    A change of any of these needs a new deployment: it is fixed when the application is built.
    """

    source: str = Field(min_length=1, description="a folder, the same on every node, or a name on Hugging Face")
    accelerator: str | None = Field(
        None, description="`cpu`, a GPU type such as `L4` or `H100`, or any GPU (none given)"
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that share the weights of one replica")
    engine: dict[str, Any] = Field({}, description="more of vLLM's engine arguments: max_model_len, dtype, …")
    environment: dict[str, str] = Field({}, description="variables of the engine's processes; no secrets")
    num_cpus: float = Field(1, gt=0, description="logical CPUs that one replica reserves")
    prefix_caching: bool = True
    cache_salt: bool = Field(True, description="tenants never share cached prefixes, whose speed would betray them")
    scaling: Scaling = Scaling()
    max_ongoing_requests: int = Field(256, ge=1, description="a replica's; more wait")
    routing: Literal["session", "prefix"] = Field(
        "session", description="a conversation stays on its replica, or goes where most of its prompt is cached"
    )
    lora: Lora | None = None

    @field_validator("source")
    @classmethod
    def found_from_everywhere(cls, source: str) -> str:
        if source.startswith((".", "~")):
            raise ValueError(f"{source!r}: a folder must be absolute, for replicas run in folders of their own")
        return source

    @field_validator("engine")
    @classmethod
    def has_options_of_its_own(cls, engine: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OURS & engine.keys()):
            raise ValueError(f"{', '.join(taken)} cannot stand in `engine`: there are options for them beside it")
        return engine

    @field_validator("environment")
    @classmethod
    def for_the_engine_alone(cls, environment: dict[str, str]) -> dict[str, str]:
        if wrong := sorted(
            name
            for name in environment
            if not name.startswith(("VLLM_", "HF_", "NCCL_", "OMP_", "CUDA_", "BRAIN_VLLM_"))
        ):
            raise ValueError(
                f"{', '.join(wrong)}: only VLLM_*, HF_*, NCCL_*, OMP_*, CUDA_* and BRAIN_VLLM_* stand here"
            )
        if any("TOKEN" in name or "KEY" in name for name in environment):
            raise ValueError("secrets stand in the nodes' environment, never in a configuration")
        return environment

    @model_validator(mode="after")
    def a_cpu_is_one(self) -> "VllmOptions":
        if self.accelerator == "cpu" and self.tensor_parallel > 1:
            raise ValueError("tensor_parallel needs GPUs")
        return self
