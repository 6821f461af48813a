"""Data that crosses processes often: pickled as its class and the values of its fields.

Processes of two versions of this code may speak to each other: a class only ever gains fields, at its end and with a
default. Defaults at the end are not carried, and values that a class has no field for are left out.
"""

from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

T = TypeVar("T")
_SIMPLE = (type(None), bool, int, float, str, tuple)


def carried(kind: type[T]) -> type[T]:
    """Make a dataclass of two or more fields cheap to pickle (the standard way asks `fields` at each pickling)."""
    own = fields(cast(Any, kind))
    values = attrgetter(*(field.name for field in own))
    defaults: list[Any] = []  # of the last fields, the last one first
    for field in reversed(own):
        if not isinstance(field.default, _SIMPLE):
            break
        defaults.append(field.default)

    def reduce(self: T) -> tuple[Any, tuple[Any, ...]]:
        found = values(self)
        count = len(found)
        for default in defaults:
            value = found[count - 1]
            if value is not default and (default is None or value != default):
                break
            count -= 1
        return rebuilt, (kind, *found[:count])

    kind.__reduce__ = reduce  # type: ignore[assignment,method-assign]
    return kind


def rebuilt(kind: type[T], *values: Any) -> T:
    """An instance with these first fields; the fields of a later version's class are left out."""
    try:
        return kind(*values)
    except TypeError:
        return kind(*values[: len(fields(cast(Any, kind)))])
