"""Arrivals of real services: the Azure LLM inference trace of 2023 (conversations and code), which is not kept here.

An hour of two services on 16 November 2023, CC-BY 4.0, from https://github.com/Azure/AzurePublicDataset; described by
Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024.
"""

import csv
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
TRACES = {
    "conversations": "azure/AzureLLMInferenceTrace_conv.csv",
    "code": "azure/AzureLLMInferenceTrace_code.csv",
}
SPREAD = 2.0  # seconds: copies of an arrival come that much earlier or later


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: seconds after the trace's first one, tokens of its prompt, tokens of its answer."""

    at: float
    prompt: int
    answer: int


def load(path: Path) -> list[Arrival]:
    """The trace in order of arrival; raises OSError, and ValueError for a file of another shape."""
    with path.open(newline="") as file:
        rows = [(_seconds(row["TIMESTAMP"]), row["ContextTokens"], row["GeneratedTokens"]) for row in _read(file, path)]
    if not rows:
        raise ValueError(f"{path} holds no requests")
    rows.sort()
    return [Arrival(at - rows[0][0], int(prompt), int(answer)) for at, prompt, answer in rows]


def multiplied(arrivals: list[Arrival], times: int, seed: int) -> list[Arrival]:
    """As if `times` such services were one: the minutes keep their shape, and the seconds are smoothed a little."""
    if times == 1:
        return arrivals
    chance = random.Random(seed)
    copies = [
        Arrival(max(0.0, one.at + chance.uniform(-SPREAD, SPREAD)), one.prompt, one.answer)
        for one in arrivals
        for _ in range(times)
    ]
    return sorted(copies, key=lambda one: one.at)


def _read(file: Iterable[str], path: Path) -> "csv.DictReader[str]":
    rows = csv.DictReader(file)
    if not {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path} is no Azure inference trace")
    return rows


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text[:26]).timestamp()  # it has seven digits after the point
