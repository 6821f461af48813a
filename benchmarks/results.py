"""The figures in a file: machine facts, options, and every cell."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurements import Measurement


def write(path: Path, facts: dict[str, str], options: dict[str, Any], cells: Sequence[Measurement]) -> None:
    """JSON, so that a later run (or another machine's) can be put beside it."""
    body = {"machine": facts, "options": options, "cells": [dataclasses.asdict(cell) for cell in cells]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1, default=str) + "\n")


def read(path: Path) -> tuple[dict[str, str], list[Measurement]]:
    """The machine facts and the cells of a file that `write` made."""
    body = json.loads(path.read_text())
    return body["machine"], [Measurement(**cell) for cell in body["cells"]]
