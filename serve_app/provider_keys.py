"""Providers' keys that the database keeps sealed: made by the ingress, opened by what calls the providers."""

import logging

from deployments.providers import ProviderFailure, resolve_key
from domain.catalog_merge import InvalidEntry
from domain.model import Catalog, Provider
from serve_app.redaction import KNOWN
from storage.sealing import CannotOpen, MasterKeys

log = logging.getLogger("brain.providers")
LONGEST = 4096  # characters


def sealed(keys: MasterKeys, provider: Provider, key: str) -> dict[str, str]:
    """The key as the database may hold it, for this provider at its address. Raises `InvalidEntry`."""
    if not 8 <= len(key) <= LONGEST or not key.isascii() or not key.isprintable() or key != key.strip():
        raise InvalidEntry(f"key: ${{NAME}}, or the key itself: 8 to {LONGEST} printable ASCII characters", "key")
    KNOWN.learn([key])
    return keys.seal(key.encode(), provider.seal_name)


def open_keys(keys: MasterKeys, catalog: Catalog) -> None:
    """Open what is sealed, as far as it can be, and have no log show any provider's key."""
    for provider in catalog.providers:
        if provider.sealed_key is not None:
            try:
                provider.open_with(keys.open(provider.sealed_key, provider.seal_name).decode())
            except (CannotOpen, ValueError, KeyError) as error:
                log.error("the key of provider %s cannot be opened: %s", provider.name, error)
        try:
            KNOWN.learn([resolve_key(provider)])
        except ProviderFailure:
            continue  # its calls say so
