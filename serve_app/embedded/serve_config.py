"""What Serve is told to run: configs/local.yaml with this start's address and catalog."""

from pathlib import Path
from typing import Any

import yaml

LOCAL = Path(__file__).resolve().parents[2] / "configs" / "local.yaml"


def local_config(port: int, catalog: dict[str, Any] | None, path: Path = LOCAL) -> dict[str, Any]:
    """The body for Serve's REST API. `catalog` (providers and routing) replaces every `user_config` of the file.

    The address is always loopback: the replicas' own ports take it too. HAProxy's frontend alone binds elsewhere.
    """
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config["http_options"] = {**config.get("http_options", {}), "host": "127.0.0.1", "port": port}
    if catalog is not None:
        for application in config["applications"]:
            for deployment in application.get("deployments", []):
                if "user_config" in deployment:
                    deployment["user_config"] = catalog
    return config
