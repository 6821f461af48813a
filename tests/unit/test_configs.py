"""The Serve configurations that stand in the repository: valid, for this application, and without a secret."""

import ast
from pathlib import Path

import pytest
import yaml
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from deployments.autoscaling import POLICY
from deployments.local_llm import scaling
from domain.model import parse_catalog

ROOT = Path(__file__).parents[2]


def names_in_app() -> set[str]:
    tree = ast.parse((ROOT / "serve_app" / "app.py").read_text())
    return {
        keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }


def deployments(name):
    config = yaml.safe_load((ROOT / "configs" / name).read_text())
    return {one["name"]: one for one in config["applications"][0]["deployments"]}


@pytest.mark.parametrize("name", ["local.yaml", "production.yaml", "gpu.yaml"])
def test_a_configuration_is_valid_and_names_every_deployment(name):
    text = (ROOT / "configs" / name).read_text()
    config = yaml.safe_load(text)
    schema = ServeDeploySchema.model_validate(config)
    assert {deployment.name for deployment in schema.applications[0].deployments} == names_in_app()
    for deployment in config["applications"][0]["deployments"]:
        if "user_config" in deployment:
            parse_catalog(deployment["user_config"])
        assert deployment["health_check_period_s"] <= 2, "a dead replica is found soon"
    host = next(d for d in config["applications"][0]["deployments"] if d["name"] == "ConversationHost")
    assert host["max_ongoing_requests"] >= 100_000, "a host at its limit would block the router for every session"
    assert "postgresql://" not in text and "sk-" not in text


@pytest.mark.parametrize("name", ["HostedLLM", "IntentClassifier", "Embedder", "Ingress", "ConversationHost"])
def test_in_production_each_kind_scales_by_its_ongoing_requests(name):
    deployment = deployments("production.yaml")[name]
    config = AutoscalingConfig.model_validate(deployment["autoscaling_config"])
    assert config.policy.is_default_policy_function()
    assert 2 <= config.min_replicas < config.max_replicas, "one may die"
    assert config.target_ongoing_requests <= deployment["max_ongoing_requests"] / 2, "it grows before it is full"
    assert config.upscale_delay_s < config.downscale_delay_s


@pytest.mark.parametrize("name", ["HostedLLM", "IntentClassifier", "Embedder"])
def test_models_give_their_replicas_back_in_steps(name):
    config = AutoscalingConfig.model_validate(deployments("production.yaml")[name]["autoscaling_config"])
    assert config.get_downscaling_factor() < 1


def test_on_one_machine_nothing_scales():
    assert all(isinstance(one["num_replicas"], int) for one in deployments("local.yaml").values())
    assert not [one for one in deployments("local.yaml").values() if "autoscaling_config" in one]


def test_a_cluster_with_gpus_scales_the_other_kinds_as_one_without():
    blocks = [
        {name: one.get("autoscaling_config") for name, one in deployments(file).items()}
        for file in ("production.yaml", "gpu.yaml")
    ]
    assert blocks[0] == blocks[1]


def test_a_vllm_model_scales_by_queue_and_cache_from_none():
    application = yaml.safe_load((ROOT / "configs" / "gpu.yaml").read_text())["applications"][0]
    provider = next(one for one in parse_catalog(application["args"]["catalog"]).providers if one.kind == "vllm")
    configs = [
        AutoscalingConfig.model_validate(scaling(model.vllm)["autoscaling_config"])
        for model in provider.models
        if model.vllm is not None
    ]
    assert {config.policy.policy_function for config in configs} == {POLICY}
    sleeping = next(config for config in configs if config.min_replicas == 0)
    assert sleeping.downscale_to_zero_delay_s >= sleeping.downscale_delay_s
    assert provider.timeouts.first_token >= 300, "the first answer waits for a replica's start"


def test_the_cluster_file_starts_ray_with_the_services_environment():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    commands = " ".join(config["head_start_ray_commands"])
    assert "configs/cluster.env" in commands and "serve deploy configs/production.yaml" in commands
