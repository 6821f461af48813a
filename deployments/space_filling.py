"""Fills a space of vectors with all messages that are stored, page by page; a stopped filling goes on where it was."""

import logging
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import TypeVar

from deployments.vector_sync import VectorSync
from domain.errors import SpaceMismatch
from domain.indexing import Spaces, StoredTexts

log = logging.getLogger("brain.indexer")
Unit = TypeVar("Unit", bound=Hashable)
PAGE = 256  # messages


async def one_by_one(
    units: Collection[Unit],
    work: Callable[[Unit], Awaitable[None]],
    reachable: Callable[[], Awaitable[bool]],
) -> dict[Unit, Exception]:
    """Do `work` on each, and give those on which it fails, with the error. Raises it where it says nothing of the unit,
    because what the work needs is not `reachable` at all."""
    failed: dict[Unit, Exception] = {}
    for unit in units:
        try:
            await work(unit)
        except Exception as error:
            if isinstance(error, SpaceMismatch) or not await reachable():
                raise
            failed[unit] = error
    return failed


async def fill_page(name: str, spaces: Spaces, texts: StoredTexts, sync: VectorSync) -> int | None:
    """Put the next page of messages into the space `name`: how many there were, and 0 when it was the end, where the
    space has become the active one. None where another process fills it, or nobody needs to.

    A message that cannot be indexed is left out, with a word in the log.
    """
    place = await spaces.fill(name)
    if place is None:
        return None
    page = await texts.after(*place, PAGE)
    if not page:
        return 0 if await spaces.finish(name) else None
    wanted: dict[str, set[str]] = {}
    for tenant, message in page:
        wanted.setdefault(tenant, set()).add(message)
    try:
        await sync.settle(wanted)
    except Exception:

        async def alone(unit: tuple[str, str]) -> None:
            await sync.settle({unit[0]: {unit[1]}})

        for (_, message), error in (await one_by_one(page, alone, sync.reachable)).items():
            log.error("the message %s cannot be indexed: %s", message, error)
    return len(page) if await spaces.fill(name, page[-1]) is not None else None
