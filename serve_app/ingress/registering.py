"""How an operator's change of a provider is made: read, changed and written back only if nobody else did meanwhile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request

from domain.catalog_merge import (
    MAX_PROVIDERS,
    InvalidEntry,
    Origin,
    merge,
    registrable,
    served_elsewhere,
    stored_form,
)
from domain.errors import NotFound
from domain.model import SCRIPTED, Catalog, Provider
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress.errors import Problem
from storage.catalog import EntryChanged

TRIES = 5
MAX_ENTRY = 512 * 1024  # bytes: every replica holds every entry


@dataclass(frozen=True, slots=True)
class Registered:
    """A provider as it stands now. `removed`: an operator has hidden the configuration's; `problem`: why the database's
    entry is left out. `version`: of the entry, 0 where there is none."""

    provider: Provider
    origin: Origin
    version: int = 0
    removed: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All providers by name, in the catalog's order, as of one moment."""

    catalog: Catalog
    providers: dict[str, Registered]


Change = Callable[[Registered | None], Mapping[str, Any] | None]


async def view_of(watch: CatalogWatch) -> View:
    """Read from the database, not from what this replica last heard."""
    _, entries = await watch.store.entries()
    merged = merge(watch.configured, entries)
    by_name = {entry.name: entry for entry in entries}
    configured = {provider.name: provider for provider in watch.configured.providers}
    found = {
        provider.name: Registered(
            provider,
            merged.origins[provider.name],
            by_name[provider.name].version if provider.name in by_name else 0,
            problem=merged.refused.get(provider.name),
        )
        for provider in merged.catalog.providers
    }
    for entry in entries:
        if entry.name in found:
            continue
        refused = merged.refused.get(entry.name)
        if refused is not None:
            shell = Provider.model_construct(name=entry.name, models=[])
            found[entry.name] = Registered(shell, "database", entry.version, problem=refused)
        else:  # the configuration may have dropped it since: its name is free then, at this version
            hidden = configured.get(entry.name) or Provider.model_construct(name=entry.name, models=[])
            found[entry.name] = Registered(hidden, "configuration", entry.version, removed=True)
    return View(merged.catalog, found)


async def edited(watch: CatalogWatch, name: str, change: Change, if_match: str | None) -> Registered:
    """Write what `change` makes of the provider, and give it; nothing is written where nothing changes.

    Raises `InvalidEntry`; `EntryChanged` where `if_match` names another version; what `change` raises.
    """
    for _ in range(TRIES):
        view = await view_of(watch)
        now = view.providers.get(name)
        version = _expected(now, if_match)
        provider = _checked(watch, view, name, change(now))
        if now is not None and now.origin == "database" and not now.problem and now.provider == provider:
            return now
        try:
            entry = await watch.store.put(name, stored_form(provider), version)
        except EntryChanged:
            if if_match is not None:
                raise
            continue
        return Registered(provider, "database", entry.version)
    raise EntryChanged


async def removed(watch: CatalogWatch, name: str, if_match: str | None, reset: bool) -> bool:
    """Take the provider out of the catalog, or, to `reset` it, let the configuration's count again.

    Whether it is still served then. Raises `NotFound` where there is nothing to take out.
    """
    configured = any(provider.name == name for provider in watch.configured.providers)
    for _ in range(TRIES):
        view = await view_of(watch)
        now = view.providers.get(name)
        version = _expected(now, if_match)
        if now is None or (now.removed and not reset) or (reset and not version):
            raise NotFound("there is no such provider" if now is None else "there is nothing registered to take back")
        if name == SCRIPTED and not version:
            raise Problem(422, "the built-in provider cannot be removed", "name")
        try:
            if reset or not configured or name == SCRIPTED:
                await watch.store.reset(name, version)
                return configured
            await watch.store.put(name, None, version)
            return False
        except EntryChanged:
            if if_match is not None:
                raise
    raise EntryChanged


def if_match(request: Request) -> str | None:
    return request.headers.get("if-match")


def etag(version: int) -> str:
    return f'"{version}"'


def _expected(now: Registered | None, wanted: str | None) -> int:
    version = 0 if now is None else now.version
    tags = {tag.strip().removeprefix("W/") for tag in (wanted or "").split(",")}
    if wanted is not None and (now is None or (wanted.strip() != "*" and etag(version) not in tags)):
        raise EntryChanged
    return version


def _checked(watch: CatalogWatch, view: View, name: str, entry: Mapping[str, Any] | None) -> Provider:
    provider = registrable(name, entry or {}, watch.configured)
    if len(orjson.dumps(stored_form(provider))) > MAX_ENTRY:
        raise InvalidEntry(f"models: a provider's entry holds at most {MAX_ENTRY // 1024} KiB", "models")
    if name not in view.providers and len(view.providers) >= MAX_PROVIDERS:
        raise InvalidEntry(f"name: at most {MAX_PROVIDERS} providers", "name")
    now = view.providers.get(name)
    had = {model.id for model in now.provider.models} if now is not None else set()
    fresh = provider.model_copy(update={"models": [model for model in provider.models if model.id not in had]})
    if (taken := served_elsewhere(view.catalog, fresh)) is not None:
        raise InvalidEntry(f"models: the model {taken[0]!r} is served by provider {taken[1]!r} already", "models")
    return provider
