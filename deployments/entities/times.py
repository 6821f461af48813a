"""Times of day as `HH:MM`: "14:30", "2.30 pm", "5pm", "half past six in the evening", "noon"."""

from collections.abc import Iterator
from typing import Any

from deployments.entities.candidates import Candidate, bounded
from deployments.entities.numbers import number
from deployments.entities.regular import built_in

_HOURS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_HALF = r"(?:\s?([ap])\.?\s?m\b\.?)"
_PART = r"(?:\s(?:in the\s)?(morning|afternoon|evening)|\s(?:at\s|in the\s)?(night))"
_CLOCK = built_in(rf"(\d{{1,2}})[:h](\d{{2}})(?::\d{{2}})?(?:{_HALF}|{_PART})?")
_DOTTED = built_in(rf"(\d{{1,2}})\.(\d{{2}}){_HALF}")
_WHOLE = built_in(rf"(\d{{1,2}}|{_HOURS}){_HALF}")
_O_CLOCK = built_in(rf"(\d{{1,2}}|{_HOURS})\s?o['’\" ]?clock(?:{_HALF}|{_PART})?")
_IN_PART = built_in(rf"(\d{{1,2}}|{_HOURS})\s(?:in the\s(morning|afternoon|evening)|(?:at|in the)\s(night))")
_PART_FIRST = built_in(r"(morning|afternoon|evening|night)\s(?:at\s)?(\d{1,2})(?::(\d{2}))?")
_SPOKEN = built_in(
    rf"(half|quarter|(?:\d{{1,2}}|five|ten|twenty|twenty[ -]five)(?:\sminutes)?)\s(past|to|till|after)\s"
    rf"(\d{{1,2}}|{_HOURS})(?:{_HALF}|{_PART})?"
)
_FIXED = built_in(r"noon|midday|midnight")


def times(text: str) -> list[Candidate]:
    """Of 24 hours; without "am", "pm" or a part of the day the hour is as written."""
    return list(_times(text))


def _times(text: str) -> Iterator[Candidate]:
    for m in _CLOCK.finditer(text):
        yield from _at(text, m, m.group(1), m.group(2), m.group(3) or m.group(4) or m.group(5), 0.95)
    for m in _DOTTED.finditer(text):
        yield from _at(text, m, m.group(1), m.group(2), m.group(3), 0.95)
    for m in _WHOLE.finditer(text):
        yield from _at(text, m, m.group(1), "0", m.group(2), 0.95)
    for m in _O_CLOCK.finditer(text):
        yield from _at(text, m, m.group(1), "0", m.group(2) or m.group(3) or m.group(4), 0.95)
    for m in _IN_PART.finditer(text):
        yield from _at(text, m, m.group(1), "0", m.group(2) or m.group(3), 0.9)
    for m in _PART_FIRST.finditer(text):
        yield from _at(text, m, m.group(2), m.group(3) or "0", m.group(1), 0.85)
    for m in _SPOKEN.finditer(text):
        yield from _spoken(text, m)
    for m in _FIXED.finditer(text):
        yield from _at(text, m, "0" if m.group().lower() == "midnight" else "12", "0", None, 0.9)


def _spoken(text: str, match: Any) -> Iterator[Candidate]:
    said, to = match.group(1).lower(), match.group(2).lower() in ("to", "till")
    before = text[max(0, match.start() - 8) : match.start()].lower()
    if to and (said.isdecimal() or before.endswith(("from ", "between "))):
        return  # "5 to 6pm", "from five to six"
    said = said.removesuffix(" minutes")
    minutes = {"half": 30, "quarter": 15}.get(said, number(said))
    if minutes is None or not 0 < minutes < 60:
        return
    hour = number(match.group(3))
    if hour is not None and to:
        hour, minutes = int(hour) - 1 or 12, 60 - minutes
    half = match.group(4) or match.group(5) or match.group(6)
    yield from _at(text, match, str(hour), str(minutes), half, 0.95)


def _at(text: str, match: Any, hour: str, minute: str, half: str | None, score: float) -> Iterator[Candidate]:
    start, end = match.span()
    hours, minutes, part = number(hour), int(minute), (half or "").lower()
    if hours is None or not 0 <= hours <= 24 or minutes > 59 or (hours == 24 and minutes):
        return
    hours = int(hours)
    if part in ("a", "p") and not 1 <= hours <= 12:
        return
    if (part in ("a", "morning") or (part == "night" and hours == 12)) and hours == 12:
        hours = 0
    elif (part in ("p", "afternoon", "evening") and hours < 12) or (part == "night" and 5 < hours < 12):
        hours += 12
    if text[start:end].lower().endswith(("am.", "pm.")):  # the dot is the sentence's
        end -= 1
    if bounded(text, start, end):
        yield Candidate(start, end, f"{hours % 24:02}:{minutes:02}", score)
