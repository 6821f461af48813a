"""Pages of a list."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageQuery:
    """One page of a list: what follows the id `after`, at most `limit` entries."""

    after: str | None = None
    limit: int = 20
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    data: list[T]
    has_more: bool


def page_of(data: list[T], query: PageQuery) -> Page[T]:
    """The page, of one entry more than it may hold where there are more."""
    return Page(data[: query.limit], len(data) > query.limit)
