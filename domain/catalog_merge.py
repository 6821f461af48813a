"""The catalog of a running service: the configuration's providers, and what an operator registered over them.

An entry of the database takes the place of the configuration's provider of its name, whole; an entry without a
provider hides it. Nothing that one entry says can take another provider down.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from domain.errors import BrainError
from domain.model import AUTO, BUILT_IN, SCRIPTED, Catalog, Model, Provider

Origin = Literal["configuration", "database"]
MAX_PROVIDERS, MAX_MODELS, MAX_ID = 500, 1000, 256
PROVIDER_KEY = "BRAIN_PROVIDER_KEY"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = frozenset({"providers"})  # a word of the routes
_OURS = ("BRAIN_", "RAY_")


class InvalidEntry(BrainError):
    """This provider cannot be registered."""

    status = 422
    type = "invalid_request_error"
    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param


class NeedsDeploy(InvalidEntry):
    """What runs as a deployment of its own cannot be registered at run time."""

    code = "needs_deploy"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What the database holds of one provider; `provider` None: it is removed. `version` is another at each change."""

    name: str
    provider: Mapping[str, Any] | None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Merged:
    """The catalog to work with, where each of its providers comes from, and why entries were left out, by name."""

    catalog: Catalog
    origins: dict[str, Origin] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def merge(configured: Catalog, entries: Iterable[CatalogEntry]) -> Merged:
    """The configuration with the entries over it. An invalid one is left out: the configuration's provider of that name
    stays. Order: that of the configuration, then new providers by name, the built-in one last."""
    providers = {provider.name: provider for provider in configured.providers}
    origins: dict[str, Origin] = dict.fromkeys(providers, "configuration")
    refused: dict[str, str] = {}
    for entry in sorted(entries, key=lambda one: one.name):
        if entry.provider is None:
            if entry.name != SCRIPTED:
                providers.pop(entry.name, None)
                origins.pop(entry.name, None)
            continue
        try:
            provider = registrable(entry.name, entry.provider, configured)
        except InvalidEntry as error:
            refused[entry.name] = str(error)
            continue
        providers[entry.name] = provider
        origins[entry.name] = "database"
    ordered = sorted(providers.values(), key=lambda one: one == BUILT_IN)
    return Merged(Catalog(providers=ordered, routing=configured.routing), origins, refused)


def registrable(name: str, entry: Mapping[str, Any], configured: Catalog) -> Provider:
    """The provider of an entry, as far as it may be registered while the service runs; raises `InvalidEntry`.

    A key is the name of an environment variable or of a file, or it is sealed. The service's own secrets are no
    provider's key: whoever may register providers could otherwise have them sent anywhere.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InvalidEntry("name: 1 to 64 letters, digits, '.', '_' and '-', and not 'providers'", "name")
    if entry.get("name", name) != name:
        raise InvalidEntry(f"name: must be {name!r}, as in the path", "name")
    try:
        provider = Provider.model_validate({**entry, "name": name})
    except ValidationError as error:
        raise invalid_entry(error) from None
    _check_reach(provider)
    _check_models(provider)
    if provider.kind == "vllm":
        _check_deployed(provider, configured)
    return provider


def invalid_entry(error: ValidationError) -> InvalidEntry:
    """The first thing that is wrong, by its path, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(step) for step in first["loc"])
    if not param:  # what a whole provider is checked for
        return InvalidEntry(str(first["msg"]), "base_url" if "base_url" in first["msg"] else None)
    return InvalidEntry(f"{param}: {first['msg']}", param)


def served_elsewhere(catalog: Catalog, provider: Provider) -> tuple[str, str] | None:
    """A model id that another provider of the catalog serves by that very name already, with that provider's name."""
    others = {
        model.id: other.name for other in catalog.providers if other.name != provider.name for model in other.models
    }
    return next(((model.id, others[model.id]) for model in provider.models if model.id in others), None)


def with_model(provider: Provider, model: Model) -> Provider:
    """`provider` with this model in the place of the one of that id, or after the others."""
    models = [model if one.id == model.id else one for one in provider.models]
    if all(one.id != model.id for one in provider.models):
        models.append(model)
    return provider.model_copy(update={"models": models})


def without_model(provider: Provider, model_id: str) -> Provider:
    return provider.model_copy(update={"models": [one for one in provider.models if one.id != model_id]})


def stored_form(provider: Provider) -> dict[str, Any]:
    """A provider as plain JSON, without what it does not set."""
    return provider.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _check_reach(provider: Provider) -> None:
    if provider.base_url is not None:
        try:
            parts = urlsplit(provider.base_url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            sound = False
        if not sound:
            raise InvalidEntry("base_url: must be an http:// or https:// address", "base_url")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise InvalidEntry("base_url: must hold no credentials, query or fragment", "base_url")
    variable = (provider.key or "")[2:-1]
    if variable.startswith(_OURS) and variable != PROVIDER_KEY:
        raise InvalidEntry("key: the service's own variables are no provider's key", "key")
    if provider.key_file is not None and not provider.key_file.startswith("/"):
        raise InvalidEntry("key_file: must be an absolute path", "key_file")
    if sum(place is not None for place in (provider.key, provider.key_file, provider.sealed_key)) > 1:
        raise InvalidEntry("key: give either key or key_file", "key")


def _check_models(provider: Provider) -> None:
    if len(provider.models) > MAX_MODELS:
        raise InvalidEntry(f"models: at most {MAX_MODELS}", "models")
    seen: set[str] = set()
    for number, model in enumerate(provider.models):
        place = f"models.{number}.id"
        if model.id == AUTO or len(model.id) > MAX_ID or not model.id.isprintable():
            raise InvalidEntry(f"{place}: 1 to {MAX_ID} printable characters, and not {AUTO!r}", place)
        if model.id in seen:
            raise InvalidEntry(f"{place}: the id {model.id!r} stands twice", place)
        seen.add(model.id)


def _check_deployed(provider: Provider, configured: Catalog) -> None:
    deployed = {
        model.id: model
        for one in configured.providers
        if one.name == provider.name and one.kind == "vllm"
        for model in one.models
    }
    for number, model in enumerate(provider.models):
        running = deployed.get(model.id)
        if running is None or (model.vllm, model.tokenizer) != (running.vllm, running.tokenizer):
            raise NeedsDeploy(
                f"the model {model.id!r} of kind vllm needs a deploy: put it into the configuration and deploy that;"
                " at run time only prices, quality, capabilities, limits and defaults of a deployed one change",
                f"models.{number}",
            )
