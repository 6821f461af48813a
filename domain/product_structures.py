"""What tenants' catalogues are made of, kept for some seconds, so that a turn asks for its products alone."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from domain.product_lexicon import Lexicon
from domain.products import CatalogueUnavailable, ProductCatalogue

FRESH = 5.0  # seconds for which a structure counts as it was
KEPT = 600.0  # seconds for which an old one counts while a new one is fetched
MOST_TENANTS = 1_000


@dataclass(slots=True)
class _Known:
    lexicon: Lexicon
    read: float


class Structures:
    """`catalogue`: None where there is none."""

    def __init__(self, catalogue: ProductCatalogue | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._catalogue, self._monotonic = catalogue, monotonic
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Lexicon]] = {}
        self._forgotten = 0

    def empty(self, tenant: str) -> bool:
        """Whether the tenant is known to have no products at the moment."""
        known = self._known.get(tenant)
        fresh = known is not None and self._monotonic() - known.read < FRESH
        return self._catalogue is None or (fresh and known is not None and not known.lexicon.structure.total)

    def had_none(self, tenant: str) -> bool:
        """Whether the tenant had no products when that was last known: it is believed while nothing can be read."""
        known = self._known.get(tenant)
        return known is not None and not known.lexicon.structure.total and self._monotonic() - known.read < KEPT

    def hear(self, tenant: str) -> None:
        """Have it read beside the turn, where nothing is known of it: a tenant without products waits for nothing."""
        known = self._known.get(tenant)
        if self._catalogue is not None and (known is None or not known.lexicon.structure.total):
            self._begin(self._catalogue, tenant)

    async def lexicon(self, tenant: str) -> Lexicon:
        """Raises `CatalogueUnavailable` where it was not read lately and cannot be now."""
        known = self._known.get(tenant)
        age = self._monotonic() - known.read if known else KEPT
        if known is not None and age < FRESH:
            return known.lexicon
        if self._catalogue is None:
            raise CatalogueUnavailable("there is no catalogue")
        reading = self._begin(self._catalogue, tenant)
        if known is not None and age < KEPT and known.lexicon.structure.total:
            return known.lexicon
        return await asyncio.shield(reading)

    def forget(self, tenant: str | None = None) -> None:
        """It has another catalogue now; None: all may have. What is being read for it is of the one before."""
        for one in list(self._known) if tenant is None else [tenant]:
            self._known.pop(one, None)
        self._forgotten += 1

    def close(self) -> None:
        for task in self._reading.values():
            task.cancel()

    def _begin(self, catalogue: ProductCatalogue, tenant: str) -> "asyncio.Task[Lexicon]":
        reading = self._reading.get(tenant)
        if reading is None:
            # in a context of its own: the end of the turn that starts it must not end it
            reading = self._reading[tenant] = asyncio.create_task(self._read(catalogue, tenant), context=Context())
            reading.add_done_callback(_seen)
        return reading

    async def _read(self, catalogue: ProductCatalogue, tenant: str) -> Lexicon:
        forgotten = self._forgotten
        try:
            structure = await catalogue.structure(tenant)
            lexicon = await asyncio.to_thread(Lexicon, structure)
            if forgotten != self._forgotten:
                return lexicon
            self._known[tenant] = _Known(lexicon, self._monotonic())
            self._known.move_to_end(tenant)
            if len(self._known) > MOST_TENANTS:
                self._known.popitem(last=False)
            return lexicon
        finally:
            del self._reading[tenant]


def _seen(task: "asyncio.Task[Lexicon]") -> None:
    if not task.cancelled():
        task.exception()
