"""Dates, times and names in people's dialogues (Schema-Guided Dialogue), which nothing here was made for.

Rastogi et al. 2020, arXiv:1909.05855; https://github.com/google-research-datasets/dstc8-schema-guided-dialogue,
CC BY-SA 4.0. Its dialogues take place on 1 March 2019.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from deployments.entities.annotated import Annotated, Span
from deployments.entities.extractor import Extractor
from domain.slots import SlotDefinition

TODAY = date(2019, 3, 1)
TRAINING = ("dialogues_001.json", "dialogues_002.json")
TEST = ("dialogues_003.json",)


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of a user's spans of one kind: how many, found with exact offsets, and with the annotated meaning."""

    kind: str
    wanted: int
    found: int
    meant: int


def load(folder: Path, files: tuple[str, ...]) -> list[Annotated]:
    """What users say. Raises OSError where a file is missing."""
    return [example for name in files for example in _user_turns(folder / "sgd" / name)]


def meanings(examples: list[Annotated]) -> list[Meaning]:
    """How well the built-in dates and times understand these, with nothing learned."""
    rows = []
    for kind in ("date", "time"):
        extractor = Extractor([SlotDefinition.model_validate({"name": kind, "kind": kind})], today=lambda: TODAY)
        wanted = found = meant = 0
        for example in examples:
            values = {(one.start, one.end): one.value for one in extractor.extract(example.text)}
            for span in example.spans:
                if span.slot.split("_")[-1] == kind:
                    wanted += 1
                    found += (span.start, span.end) in values
                    meant += values.get((span.start, span.end)) == span.value
        rows.append(Meaning(kind, wanted, found, meant))
    return rows


def _user_turns(path: Path) -> Iterator[Annotated]:
    for dialogue in json.loads(path.read_text()):
        for turn in dialogue["turns"]:
            if turn["speaker"] == "USER":
                yield Annotated(turn["utterance"], tuple(_spans(turn)))


def _spans(turn: dict[str, list[dict[str, list[dict[str, object]]]]]) -> Iterator[Span]:
    """Spans without overlaps, in order, with the canonical value that the turn's actions give."""
    canonical: dict[tuple[str, str], str] = {}
    marked: list[tuple[int, int, str]] = []
    for frame in turn["frames"]:
        for action in frame["actions"]:
            for said, meant in zip(action["values"], action.get("canonical_values", []), strict=False):
                canonical[str(action["slot"]), str(said)] = str(meant)
        for slot in frame["slots"]:
            marked.append((int(str(slot["start"])), int(str(slot["exclusive_end"])), str(slot["slot"])))
    end = 0
    for start, last, name in sorted(marked):
        if start >= end:
            text = str(turn["utterance"])[start:last]
            yield Span(name, start, last, canonical.get((name, text)))
            end = last
