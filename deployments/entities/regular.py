"""Regular expressions that cannot hang: RE2 takes time linear in the text (Cox 2007, swtch.com/~rsc/regexp/).

Linear is not enough alone: each find may read the rest of the text again, and a large program is slow a character
(`[^c]*a[^c]{200}c|.` took 95 s on 32,000 characters before these bounds). So a tenant's program is bounded, a long text
is read in windows, and all patterns of one extraction share an allowance of processor time.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import re2

from deployments.entities.candidates import Candidate, bounded
from domain.errors import InvalidSlot

MOST_FOUND = 500  # by one pattern in one text
WINDOW, OVERLAP = 2_000, 256  # characters; a tenant's pattern matches at most OVERLAP of them in a text over WINDOW
PROGRAM = 2_000  # instructions; `ORD-\d{4,10}` has 24
MEMORY = 1 << 20  # bytes a pattern
ALLOWANCE = 0.1  # seconds of processor time for all of a tenant's patterns in one text


class Allowance:
    """Processor time that patterns may still take in one text; `spent` once it is over."""

    def __init__(self, seconds: float = ALLOWANCE, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock, self._end = clock, clock() + seconds

    @property
    def spent(self) -> bool:
        return self._clock() >= self._end


def built_in(pattern: str) -> Any:
    """A compiled pattern of this package; letters match in either case."""
    return re2.compile(pattern, _options(8 << 20))


def compiled(slot: str, pattern: str) -> Any:
    """A tenant's pattern, compiled. Raises InvalidSlot: not RE2's syntax, too large, or it matches the empty text."""
    try:
        found = re2.compile(pattern, _options(MEMORY))
    except re2.error as error:
        reason = error.args[0] if error.args else "not a regular expression"
        told = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidSlot(slot, f"pattern: {told}") from None
    if found.programsize > PROGRAM:
        raise InvalidSlot(slot, f"pattern: too large ({found.programsize} steps, at most {PROGRAM}): repeat less")
    if found.match("") is not None:
        raise InvalidSlot(slot, "pattern: it matches the empty text")
    return found


def spans(pattern: Any, text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the first group, or of the whole where there is none; only whole words."""
    yield from _words(pattern.finditer(text), text, 1 if pattern.groups else 0)


def found(pattern: Any, text: str, allowance: Allowance) -> list[Candidate]:
    """What a tenant's pattern finds; the value is the text itself. Stops where the allowance is spent."""
    group, kept = 1 if pattern.groups else 0, set[tuple[int, int]]()
    for first in range(0, max(len(text) - OVERLAP, 1), WINDOW - OVERLAP):
        for span in _words(pattern.finditer(text, first, min(first + WINDOW, len(text))), text, group, allowance):
            kept.add(span)
            if len(kept) >= MOST_FOUND:
                break
        if allowance.spent or len(kept) >= MOST_FOUND:
            break
    return [Candidate(start, end, text[start:end], 0.95) for start, end in sorted(kept)]


def _words(
    matches: Iterator[Any], text: str, group: int, allowance: Allowance | None = None
) -> Iterator[tuple[int, int]]:
    for match in matches:
        start, end = match.span(group)
        if 0 <= start < end and bounded(text, start, end):
            yield start, end
        if allowance is not None and allowance.spent:
            return


def searchable(text: str) -> str:
    """The text with lone surrogates, which no encoding has, replaced one to one; offsets stay."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def _options(max_mem: int) -> Any:
    options = re2.Options()
    options.max_mem, options.case_sensitive, options.log_errors = max_mem, False, False
    return options
