"""Providers and models while the service runs: what an operator registers, every replica uses within seconds.

A provider that is written here takes the place of the configuration's of its name, whole, until it is reset. Whoever
may do this decides where requests and keys are sent, also inside the network: it is the operator's alone, and logged.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Query, Request
from pydantic import Field, RootModel, ValidationError
from starlette.responses import Response

from domain.catalog_merge import invalid_entry, registrable, stored_form, with_model, without_model
from domain.errors import NotFound, Unavailable
from domain.model import Model, Provider, is_reference
from domain.tenant import Caller
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress import logs
from serve_app.ingress.answer_models import RegisteredModel, RegisteredProvider, RegisteredProviders, Removed
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import RegistersModels
from serve_app.ingress.bodies import checked
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.model_settings import registry_of
from serve_app.ingress.parts import parts_of
from serve_app.ingress.registering import Change, Registered, edited, etag, if_match, removed, view_of
from serve_app.provider_keys import sealed
from storage.sealing import MasterKeys

router = APIRouter(prefix="/api/v1/admin/models", tags=["administration"])
_TOLD = ("object", "origin", "version", "removed", "problem")  # of an answer that is sent back, not the sender's to set


class ProviderPut(Provider):
    name: str = Field("", description="that of the path, if it is given")
    key: str | None = Field(
        None, description="`${NAME}` of an environment variable, or the key itself: it is sealed and never shown again"
    )
    sealed_key: bool = Field(  # type: ignore[assignment]
        False, description="true: the key that is sealed already stays; `base_url` must be the same then"
    )


class ModelPut(Model):
    id: str = Field("", description="that of the path, if it is given")


class _Fields(RootModel[dict[str, Any]]):
    pass


@router.get("", response_model=None, responses={200: {"model": RegisteredProviders}})
async def list_providers(request: Request, who: RegistersModels) -> Response:
    """All providers with their models, and where they come from: the configuration or the database."""
    view = await view_of(registry_of(parts_of(request)))
    data = [_provider_json(one) for one in view.providers.values()]
    ends = {"first_id": data[0]["name"], "last_id": data[-1]["name"]} if data else {"first_id": None, "last_id": None}
    return Answer({"object": "list", "data": data, **ends, "has_more": False})


@router.get("/providers/{name}", response_model=None, responses={200: {"model": RegisteredProvider}})
async def get_provider(request: Request, who: RegistersModels, name: str) -> Response:
    """One provider; its `ETag` can be sent as `If-Match` with a change."""
    found = await _provider(registry_of(parts_of(request)), name)
    return _provider_answer(found)


@router.put(
    "/providers/{name}",
    response_model=None,
    responses={200: {"model": RegisteredProvider}},
    openapi_extra=takes(ProviderPut),
)
async def put_provider(request: Request, who: RegistersModels, name: str) -> Response:
    """Register a provider, or replace it whole. Its key: `${NAME}` of the replicas' environment, a file's name, or the
    key itself, which is kept sealed and is shown to nobody."""
    parts = parts_of(request)
    watch = registry_of(parts)
    fields = await _fields(request)
    found = await edited(watch, name, _with_key(parts.master_keys, watch, name, fields), if_match(request))
    await _told(request, watch, who, "provider.put", name, version=found.version)
    return _provider_answer(found)


@router.delete("/providers/{name}", response_model=None, responses={200: {"model": Removed}})
async def delete_provider(
    request: Request,
    who: RegistersModels,
    name: str,
    reset: Annotated[bool, Query(description="forget what was registered: the configuration's counts again")] = False,
) -> Response:
    """Take a provider and its models out of the catalog, also one of the configuration."""
    watch = registry_of(parts_of(request))
    served = await removed(watch, name, if_match(request), reset)
    await _told(request, watch, who, "provider.reset" if reset else "provider.delete", name)
    return Answer({"id": name, "object": "provider", "deleted": not served})


@router.get("/{provider}/{model_id:path}", response_model=None, responses={200: {"model": RegisteredModel}})
async def get_registered_model(request: Request, who: RegistersModels, provider: str, model_id: str) -> Response:
    found = await _provider(registry_of(parts_of(request)), provider)
    return _model_answer(found, _model(found, model_id))


@router.put(
    "/{provider}/{model_id:path}",
    response_model=None,
    responses={200: {"model": RegisteredModel}},
    openapi_extra=takes(ModelPut),
)
async def put_model(request: Request, who: RegistersModels, provider: str, model_id: str) -> Response:
    """Add a model to a provider, or replace it whole."""
    watch = registry_of(parts_of(request))
    fields = {name: value for name, value in (await _fields(request)).items() if name != "provider"}
    if fields.get("id", model_id) != model_id:
        raise Problem(422, f"id: must be {model_id!r}, as in the path", "id")
    try:
        model = Model.model_validate({**fields, "id": model_id})
    except ValidationError as error:
        raise invalid_entry(error) from None
    found = await edited(watch, provider, lambda now: stored_form(with_model(_present(now), model)), if_match(request))
    await _told(request, watch, who, "model.put", provider, model_id, found.version)
    return _model_answer(found, _model(found, model_id))


@router.delete("/{provider}/{model_id:path}", response_model=None, responses={200: {"model": Removed}})
async def delete_model(request: Request, who: RegistersModels, provider: str, model_id: str) -> Response:
    """Take a model out of a provider."""
    watch = registry_of(parts_of(request))

    def change(now: Registered | None) -> Mapping[str, Any]:
        _model(Registered(_present(now), "database"), model_id)
        return stored_form(without_model(_present(now), model_id))

    found = await edited(watch, provider, change, if_match(request))
    await _told(request, watch, who, "model.delete", provider, model_id, found.version)
    return Answer({"id": model_id, "object": "model", "deleted": True})


def _with_key(keys: MasterKeys | None, watch: CatalogWatch, name: str, fields: Mapping[str, Any]) -> Change:
    """What is stored of the fields: a key that stands there itself is sealed, one that is kept is the present one."""
    kept, key = fields.get("sealed_key", False), fields.get("key")
    if not isinstance(kept, bool):
        raise Problem(422, "sealed_key: true keeps the key that is there, false does not", "sealed_key")

    def change(now: Registered | None) -> Mapping[str, Any]:
        entry = {field: value for field, value in fields.items() if field != "sealed_key"}
        if keys is not None and isinstance(key, str) and not is_reference(key):
            del entry["key"]
            entry["sealed_key"] = sealed(keys, registrable(name, entry, watch.configured), key)
        elif kept:
            present = None if now is None or now.removed or now.problem else now.provider
            if present is None or present.sealed_key is None or present.base_url != fields.get("base_url"):
                raise Problem(422, "sealed_key: there is no key for this address: give it once more", "sealed_key")
            entry["sealed_key"] = present.sealed_key
        return entry

    return change


async def _fields(request: Request) -> dict[str, Any]:
    fields = checked(_Fields, await request.body()).root
    return {name: value for name, value in fields.items() if name not in _TOLD}


async def _told(
    request: Request,
    watch: CatalogWatch,
    who: Caller,
    action: str,
    provider: str,
    model: str | None = None,
    version: int | None = None,
) -> None:
    """For the record; and this replica does not wait for its next look."""
    logs.write(
        "audit",
        request_id=visit_of(request.scope).request_id,
        caller=who.key_id,
        tenant=who.tenant,
        action=action,
        provider=provider,
        model=model,
        version=version,
    )
    with suppress(Unavailable):
        await watch.refresh()


async def _provider(watch: CatalogWatch, name: str) -> Registered:
    found = (await view_of(watch)).providers.get(name)
    if found is None:
        raise NotFound("there is no such provider")
    return found


def _present(now: Registered | None) -> Provider:
    if now is None or now.removed or now.problem:
        raise NotFound("there is no such provider: register it first")
    return now.provider


def _model(found: Registered, model_id: str) -> Model:
    for model in found.provider.models:
        if model.id == model_id:
            return model
    raise NotFound("this provider has no such model")


def _provider_answer(found: Registered) -> Answer:
    return Answer(_provider_json(found), headers={"etag": etag(found.version)})


def _model_answer(found: Registered, model: Model) -> Answer:
    content = {
        **model.model_dump(mode="json", by_alias=True),
        "object": "model",
        "provider": found.provider.name,
        "origin": found.origin,
        "version": found.version,
    }
    return Answer(content, headers={"etag": etag(found.version)})


def _provider_json(found: Registered) -> dict[str, Any]:
    """The key as the name of its place, or that there is a sealed one. A configured address may hold credentials: they
    are left out."""
    content = found.provider.model_dump(mode="json", by_alias=True)
    content["sealed_key"] = found.provider.sealed_key is not None
    if content.get("base_url"):
        content["base_url"] = _without_credentials(content["base_url"])
    return {
        **content,
        "object": "provider",
        "origin": found.origin,
        "version": found.version,
        "removed": found.removed,
        "problem": found.problem,
    }


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
