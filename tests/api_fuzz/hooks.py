"""For schemathesis, in its process: of the ids that it makes up, some are put in the place of by ids that are there."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import schemathesis

THINGS: dict[str, list[str]] = json.loads(Path(os.environ["BRAIN_FUZZ_THINGS"]).read_text())
SPARED = 4  # one removal in so many hits something that is there
MOST = 255  # characters of an idempotency key
_numbers = itertools.count()


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    if not path_parameters:
        return path_parameters
    digest = sum(map(ord, str(sorted(path_parameters.items()))))
    if digest % (SPARED if context.operation.method.upper() == "DELETE" else 2):
        return path_parameters
    return {
        name: THINGS[name][digest % len(THINGS[name])] if name in THINGS else value
        for name, value in path_parameters.items()
    }


@schemathesis.hook
def map_headers(context: Any, headers: dict[str, Any] | None) -> dict[str, Any] | None:
    """An idempotency key counts once: one that comes again is told the first answer, though what it made may be gone by
    then, and schemathesis would take it for made anew."""
    key = (headers or {}).get("Idempotency-Key")
    if headers is None or not isinstance(key, str) or not 0 < len(key) <= MOST:
        return headers
    return {**headers, "Idempotency-Key": f"fuzz-{next(_numbers)}"}
