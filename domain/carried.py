"""Data that crosses processes often: pickled as its class and the tuple of its fields."""

from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

T = TypeVar("T")


def carried(kind: type[T]) -> type[T]:
    """Make a dataclass of two or more fields cheap to pickle (the standard way asks `fields` at each pickling)."""
    values = attrgetter(*(field.name for field in fields(cast(Any, kind))))

    def reduce(self: T) -> tuple[type[T], tuple[Any, ...]]:
        return kind, values(self)

    kind.__reduce__ = reduce  # type: ignore[assignment,method-assign]
    return kind
