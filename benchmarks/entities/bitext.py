"""Bitext's e-commerce utterances with their entities, split so that the parts share no template.

https://github.com/bitext/customer-support-intent-detection-training-dataset, CDLA-Sharing-1.0; read, never kept. All
three published files count: their own split shares templates.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from deployments.entities.annotated import Annotated, Span
from deployments.entities.words import forms

TEST_SHARE = 5  # one template in so many is of the test part


def load(folder: Path) -> list[Annotated]:
    """All utterances. Raises OSError where there are none."""
    if not (files := sorted((folder / "bitext").glob("*/*.csv"))):
        raise FileNotFoundError(2, "no such data", str(folder / "bitext"))
    examples = []
    for path in files:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                spans: tuple[Span, ...] = ()
                if row["entity_type"]:
                    start, end = int(row["start_offset"]), int(row["end_offset"])
                    spans = (Span(row["entity_type"], start, end, row["entity_value"]),)
                examples.append(Annotated(row["utterance"], spans))
    return examples


def template(example: Annotated) -> str:
    """Its words, with the slot's name in the place of each value."""
    text, end = "", 0
    for span in example.spans:
        text, end = f"{text}{example.text[end : span.start]} slot{span.slot} ", span.end
    return " ".join(forms(text + example.text[end:]))


def split(
    examples: Sequence[Annotated], key: Callable[[Annotated], str] = template, salt: str = "", parts: int = TEST_SHARE
) -> tuple[list[Annotated], list[Annotated]]:
    """Training and test part: by a hash of `key`, so that what shares it stays together."""
    train: list[Annotated] = []
    test: list[Annotated] = []
    for example in examples:
        digest = hashlib.sha256(f"{salt}{key(example)}".encode()).digest()
        (test if digest[0] % parts == 0 else train).append(example)
    return train, test
