"""Settings as `NAME=VALUE` on the command line: names with dots reach inside, values are JSON or plain text."""

import json
from collections.abc import Sequence
from typing import Any

from serve_app.embedded.refusal import Refusal


def settings_of(pairs: Sequence[str], present: dict[str, Any] | None = None) -> dict[str, Any]:
    """The top-level settings that `pairs` name, as they shall be; what a dotted name leaves out stays as it is in
    `present`. Raises `Refusal` for what is no pair."""
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not all(name.split(".")):
            raise Refusal(f"{pair!r} is no setting: write NAME=VALUE, as in retention_days=30")
        first, *rest = name.split(".")
        if first not in given:
            given[first] = _copy((present or {}).get(first)) if rest else None
        inner, key = given, first
        for step in rest:
            if not isinstance(inner[key], dict):
                inner[key] = {}
            inner, key = inner[key], step
            inner.setdefault(key, None)
        inner[key] = _value(value)
    return given


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
