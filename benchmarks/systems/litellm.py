"""The LiteLLM proxy: two workers, no database."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.process_tree import started
from benchmarks.systems import Provider, free_port, healthy
from benchmarks.systems.environments import environment
from benchmarks.targets import ChatCompletions

KEY = "sk-" + secrets.token_hex(32)
"""The proxy does not start without a strong one."""


@contextlib.contextmanager
def start(provider: Provider, folder: Path, models: list[str], console: Console) -> Iterator[ChatCompletions]:
    """Run it while the block runs."""
    port, programs = free_port(), environment("litellm", console)
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(_config(provider, models)))  # JSON is YAML
    env = {
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # do not fetch the price list
    }
    command = [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "2", "--telemetry", "False"]
    with started(
        command, log=folder / "litellm.log", ready=lambda: healthy(port, "/health/liveliness"), env=env, stop_s=3
    ):
        yield ChatCompletions(f"http://127.0.0.1:{port}/v1", KEY, alias)


def alias(model: str) -> str:
    """A name without commas: the proxy takes `a,b` for two models and asks both."""
    return model.replace(",", "-")


def _config(provider: Provider, models: list[str]) -> dict[str, object]:
    def entry(model: str) -> dict[str, object]:
        upstream = {"model": f"openai/{model}", "api_base": provider.url, "api_key": provider.key}
        return {"model_name": alias(model), "litellm_params": upstream}

    return {"model_list": [entry(model) for model in models], "litellm_settings": {"num_retries": 0}}
