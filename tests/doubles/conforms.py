"""Whether a request body is what an official client library's parameter types allow, and nothing more."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict


def check(value: Any, kind: Any, where: str = "body") -> None:
    """Raise ValueError, with the path of what is wrong, unless `value` conforms to the annotation `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (Any, object):
        return
    if origin in (Annotated, Required, NotRequired):
        check(value, arguments[0], where)
    elif origin in (Union, types.UnionType):
        _any_of(value, arguments, where)
    elif origin is Literal:
        _must(value in arguments, where, f"must be one of {arguments}, not {value!r}")
    elif is_typeddict(kind):
        _dictionary(value, kind, where)
    elif origin in (dict, Mapping):
        _must(isinstance(value, dict), where, "must be an object")
        for name, inner in value.items():
            check(inner, arguments[1], f"{where}.{name}")
    elif origin is not None and issubclass(origin, Iterable):
        _must(isinstance(value, list), where, "must be a list")
        for place, inner in enumerate(value):
            check(inner, arguments[0], f"{where}.{place}")
    else:
        _plain(value, kind, where)


def _plain(value: Any, kind: Any, where: str) -> None:
    expected = (int, float) if kind is float else kind
    right = isinstance(value, expected) and not (isinstance(value, bool) and kind is not bool)
    _must(right, where, f"must be a {kind.__name__}")


def _any_of(value: Any, kinds: Iterable[Any], where: str) -> None:
    errors = []
    for kind in kinds:
        try:
            check(value, kind, where)
        except ValueError as error:
            errors.append(str(error))
        else:
            return
    raise ValueError(max(errors, key=len))  # the deepest path says most


def _dictionary(value: Any, kind: Any, where: str) -> None:
    _must(isinstance(value, dict), where, "must be an object")
    hints = get_type_hints(kind, include_extras=True)
    for name in value:
        _must(name in hints, f"{where}.{name}", "is not a known field")
    for name, hint in hints.items():
        # Where annotations are postponed, the class itself does not know what its `Required` wraps.
        if get_origin(hint) is Required or (name in kind.__required_keys__ and get_origin(hint) is not NotRequired):
            _must(name in value, f"{where}.{name}", "is required")
    for name, inner in value.items():
        check(inner, hints[name], f"{where}.{name}")


def _must(right: bool, where: str, what: str) -> None:
    if not right:
        raise ValueError(f"{where}: {what}")
