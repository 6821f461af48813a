"""What is compared: the autoscaling of the configuration files, as it stands there, and two others of each kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from ray.serve.config import AutoscalingConfig

from benchmarks.autoscaling.models import MODELS, MockModel
from benchmarks.autoscaling.trace import ROOT
from deployments.autoscaling import autoscaling_config
from deployments.local_llm import local_models
from domain.model import parse_catalog

DEFAULT = "as configured"
BY_REQUESTS: dict[str, Any] = {"policy": {}}  # Serve's own policy
SUDDEN: dict[str, Any] = {"downscaling_factor": 1.0}
ALTERNATIVES: dict[str, dict[str, dict[str, Any]]] = {
    "hosted": {
        "100 streams a replica": {"target_ongoing_requests": 100},
        "400 streams a replica": {"target_ongoing_requests": 400},
    },
    "vLLM": {
        "one replica always": {"min_replicas": 1},
        "by requests alone": BY_REQUESTS,
    },
    "embedder": {
        "32 requests, all at once down": {"target_ongoing_requests": 32, **SUDDEN},
        "down after 60 s": {"downscale_delay_s": 60},
    },
    "classifier": {
        "64 requests, all at once down": {"target_ongoing_requests": 64, **SUDDEN},
        "three replicas at least": {"min_replicas": 3},
    },
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to scale one kind. `max_ongoing`: requests that a replica accepts."""

    model: MockModel
    label: str
    config: AutoscalingConfig
    max_ongoing: int


def variants(kind: str) -> Iterator[Variant]:
    """The default, then the alternatives; raises OSError, LookupError or ValueError for files that lack it."""
    default, max_ongoing = configured(kind)
    for label, changes in {DEFAULT: {}, **ALTERNATIVES[kind]}.items():
        config = AutoscalingConfig.model_validate({**default, **changes})
        yield Variant(MODELS[kind], label, config, max_ongoing)


def configured(kind: str) -> tuple[dict[str, Any], int]:
    """Autoscaling and `max_ongoing_requests` of a kind in configs/."""
    application = yaml.safe_load((ROOT / "configs" / "gpu.yaml").read_text())["applications"][0]
    if kind == "vLLM":
        models = local_models(parse_catalog(application["args"]["catalog"]))
        options = next(one.vllm for one in models if one.vllm is not None and one.vllm.scaling.min_replicas == 0)
        return autoscaling_config(options.scaling), options.max_ongoing_requests
    found = next(one for one in application["deployments"] if one["name"] == MODELS[kind].deployment)
    return found["autoscaling_config"], found["max_ongoing_requests"]
