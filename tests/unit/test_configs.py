"""The Serve configurations that stand in the repository: valid, for this application, and without a secret."""

import ast
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

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


@pytest.mark.parametrize("name", ["local.yaml", "production.yaml"])
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


def test_the_cluster_file_starts_ray_with_the_services_environment():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    commands = " ".join(config["head_start_ray_commands"])
    assert "configs/cluster.env" in commands and "serve deploy configs/production.yaml" in commands
