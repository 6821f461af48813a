"""Texts whose slot values are marked: as spans, or in the text itself."""

import re
from dataclasses import dataclass

_MARK = re.compile(r"\{\{([^{}:]{1,64})(?::([^{}]{1,200}))?\}\}")
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Span:
    """`text[start:end]` is a value of `slot`; `value` is how it should be written, by default as in the text."""

    slot: str
    start: int
    end: int
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Annotated:
    """A text with its spans, in order and without overlaps. `known` is False for a span whose place is known and whose
    value is not: a bare `{{slot}}`."""

    text: str
    spans: tuple[Span, ...] = ()
    placeholders: tuple[Span, ...] = ()


def parse(marked: str) -> Annotated:
    """`cancel order {{order_number: A-123}} for {{Person Name}}`: a value in its place, and a place alone.

    A slot's name is in lower case, with "_" for what is neither letter nor digit. Raises ValueError for a mark without
    a name.
    """
    text: list[str] = []
    length = done = 0
    spans: list[Span] = []
    placeholders: list[Span] = []
    for mark in _MARK.finditer(marked):
        before = marked[done : mark.start()]
        said = (mark.group(2) or "").strip() or mark.group(1).strip()
        slot = _NOT_IN_NAME.sub("_", mark.group(1).lower()).strip("_")
        if not slot or not slot[0].isalpha():
            raise ValueError(f"{mark.group()!r} names no slot")
        start = length + len(before)
        (spans if mark.group(2) else placeholders).append(Span(slot, start, start + len(said)))
        text += [before, said]
        length, done = start + len(said), mark.end()
    return Annotated("".join([*text, marked[done:]]), tuple(spans), tuple(placeholders))
