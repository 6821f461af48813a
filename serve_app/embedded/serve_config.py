"""What Serve is told to run: configs/local.yaml with this start's address and catalog."""

from pathlib import Path
from typing import Any

import yaml

from deployments.local_llm import deployment_name, local_models
from domain.model import parse_catalog

LOCAL = Path(__file__).resolve().parents[2] / "configs" / "local.yaml"


def local_config(port: int, catalog: dict[str, Any] | None, path: Path = LOCAL) -> dict[str, Any]:
    """The body for Serve's REST API. `catalog` (providers and routing) replaces every `user_config` of the file.

    Its vLLM providers are arguments of the application too, for each of their models is a deployment. The address is
    always loopback: the replicas' own ports take it too. HAProxy's frontend alone binds elsewhere.
    """
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config["http_options"] = {**config.get("http_options", {}), "host": "127.0.0.1", "port": port}
    if catalog is not None:
        local = [provider for provider in catalog.get("providers") or [] if provider.get("kind") == "vllm"]
        for application in config["applications"]:
            if local:
                application["args"] = {"catalog": {"providers": local}}
                for model in local_models(parse_catalog({"providers": local})):
                    application["deployments"].append({"name": deployment_name(model), "user_config": catalog})
            for deployment in application.get("deployments", []):
                if "user_config" in deployment:
                    deployment["user_config"] = catalog
    return config
