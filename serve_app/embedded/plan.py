"""What one `brain up` was asked to run, checked before anything starts."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from deployments.local_llm import HINT, installed, local_models
from domain.model import Provider, parse_catalog
from serve_app.embedded.refusal import Refusal

PROVIDER_KEY = "BRAIN_PROVIDER_KEY"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Plan:
    """`catalog`: providers and routing, None for those of configs/local.yaml. `environment`: more for the replicas."""

    host: str
    port: int
    catalog: dict[str, Any] | None
    environment: dict[str, str]
    ready_file: Path | None

    @property
    def public(self) -> bool:
        """Whether the API can be reached from other machines."""
        return self.host not in LOOPBACK_HOSTS

    @property
    def local(self) -> bool:
        """Whether models are to be loaded here."""
        return bool(local_models(parse_catalog(self.catalog)))

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"


def from_flags(url: str, key: str | None, models: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A catalog of one OpenAI-compatible provider, and the environment that holds its key."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.rstrip("/").endswith("/v1"):
        raise Refusal(f"--provider-url {url!r} is not an OpenAI-compatible base URL: give one like http://host:8000/v1")
    if parts.username or parts.password or parts.query:
        raise Refusal("--provider-url must hold no key: give it with --provider-key")
    if not models:
        raise Refusal("--provider-url needs at least one --model (a name, or a pattern such as 'gpt-*')")
    provider = {"name": "default", "kind": "openai", "base_url": url.rstrip("/"), "models": [{"id": m} for m in models]}
    if key:
        provider["key"] = f"${{{PROVIDER_KEY}}}"
    concrete = [model for model in models if "*" not in model]
    catalog = {"providers": [provider], "routing": {"default": concrete[0]} if concrete else {}}
    return _checked(catalog, "the provider flags"), {PROVIDER_KEY: key} if key else {}


class _PlainLoader(yaml.SafeLoader):
    """Leaves dates as they are written: what comes of a file goes on as JSON."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def from_file(path: Path) -> dict[str, Any]:
    """The catalog of a `--config` file; every `${NAME}` and key file in it must be there."""
    try:
        content = yaml.load(path.read_text(), _PlainLoader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise Refusal(f"--config {path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"--config {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise Refusal(f"--config {path} must hold `providers:` and `routing:`")
    catalog = _checked(content, f"--config {path}")
    for provider in parse_catalog(catalog).providers:
        _check_key(provider, path)
    return catalog


def check_vllm(catalog: dict[str, Any]) -> None:
    """What runs here must be installed here."""
    if (models := local_models(parse_catalog(catalog))) and not installed():
        raise Refusal(f"the model {models[0].id!r} cannot run here: {HINT}")


def _check_key(provider: Provider, path: Path) -> None:
    for name in re.findall(r"\$\{(\w+)\}", provider.key or ""):
        if not os.environ.get(name):
            raise Refusal(
                f"--config {path} names ${{{name}}} for provider {provider.name!r}: set that environment variable"
            )
    if provider.key_file and not os.access(provider.key_file, os.R_OK):
        raise Refusal(f"--config {path}: the key_file {provider.key_file} of provider {provider.name!r} cannot be read")


def _checked(catalog: dict[str, Any], source: str) -> dict[str, Any]:
    try:
        parse_catalog(catalog)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refusal(f"{source}: {place + ': ' if place else ''}{first['msg']}") from None
    return catalog
