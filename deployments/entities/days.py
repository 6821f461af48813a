"""Dates that a text writes out: "2026-03-05", "5/3/26", "the 5th of March", "March 5th, 2026", "on the 5th"."""

from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, date, timedelta

from deployments.entities.candidates import Candidate, bounded
from deployments.entities.regular import built_in

_NAMES_TEXT = "january february march april may june july august september october november december"
_NAMES = _NAMES_TEXT.split()
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_ORDINALS_TEXT = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third "
    "twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
)
_ORDINALS = _ORDINALS_TEXT.split()
_ORDINAL = "|".join(sorted(_ORDINALS, key=len, reverse=True)).replace("-", "[ -]")
_DAY = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{_ORDINAL})"
_YEAR = r"(?:,?\s(\d{4}))?"
_ISO = built_in(r"(\d{4})([-/.])(\d{1,2})[-/.](\d{1,2})")
_NUMERIC = built_in(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4}|\d{2})")
_DAY_MONTH = built_in(rf"({_DAY})(?:\sof)?[\s-]({MONTH})\.?{_YEAR}")
_MONTH_DAY = built_in(rf"({MONTH})\.?\s(?:the\s)?({_DAY}){_YEAR}")
_MONTH_YEAR = built_in(rf"({MONTH})\.?,?\s(?:of\s)?(\d{{4}})")
_OF_MONTH = built_in(rf"(\d{{1,2}}(?:st|nd|rd|th)|{_ORDINAL})\sof\s(this|next|last)\smonth")
_BARE = built_in(r"the\s(\d{1,2}(?:st|nd|rd|th))")
_AFTER_BARE_TEXT = "of at in please and or to until till for with from if by around"
_AFTER_BARE = frozenset(_AFTER_BARE_TEXT.split())
_ENDS = ("", ".", ",", "?", "!", ";", ")")


def day(year: int, month: int, number: int) -> date | None:
    """None where the calendar has no such day."""
    try:
        return date(year, month, number)
    except ValueError:
        return None


def shifted(today: date, months: int) -> date | None:
    """The same day of another month, or its last one. None beyond the years that there are."""
    year, month = divmod(today.year * 12 + today.month - 1 + months, 12)
    if not MINYEAR <= year <= MAXYEAR:
        return None
    return next(found for back in range(4) if (found := day(year, month + 1, today.day - back)))


def written_dates(text: str, today: date, day_first: bool) -> Iterator[Candidate]:
    """A day without a year is the next one from `today` on."""
    for m in _ISO.finditer(text):
        yield from _at(text, m.span(), day(int(m.group(1)), int(m.group(3)), int(m.group(4))))
    for m in _NUMERIC.finditer(text):
        first, second, year = int(m.group(1)), int(m.group(3)), int(m.group(4))
        if (day_first or m.group(2) == "." or first > 12) and second <= 12:
            first, second = second, first
        yield from _at(text, m.span(), day(year + 2000 if year < 100 else year, first, second))
    for m in _DAY_MONTH.finditer(text):
        yield from _at(text, m.span(), _named(m.group(2), m.group(1), m.group(3), today))
    for m in _MONTH_DAY.finditer(text):
        yield from _at(text, m.span(), _named(m.group(1), m.group(2), m.group(3), today))
    for m in _MONTH_YEAR.finditer(text):
        if bounded(text, *m.span()):
            yield Candidate(m.start(), m.end(), f"{int(m.group(2)):04}-{_month(m.group(1)):02}", 0.9)
    for m in _OF_MONTH.finditer(text):
        month = shifted(today.replace(day=1), {"this": 0, "next": 1, "last": -1}[m.group(2).lower()])
        yield from _at(text, m.span(), month and day(month.year, month.month, _number(m.group(1))))
    for m in _BARE.finditer(text):
        following = text[m.end() : m.end() + 12].split(maxsplit=1)
        if text[m.end() : m.end() + 1] in _ENDS or not following or following[0].lower() in _AFTER_BARE:
            yield from _at(text, m.span(), _next(_number(m.group(1)), today), 0.7)


def _at(text: str, span: tuple[int, int], found: date | None, score: float = 0.95) -> Iterator[Candidate]:
    start, end = span
    while text[end - 1] == ".":
        end -= 1
    if found is not None and bounded(text, start, end):
        yield Candidate(start, end, found.isoformat(), score)


def _month(name: str) -> int:
    return next(place for place, full in enumerate(_NAMES, 1) if full.startswith(name.lower()[:3]))


def _number(said: str) -> int:
    plain = said.lower().replace(" ", "-")
    return _ORDINALS.index(plain) + 1 if plain in _ORDINALS else int("".join(c for c in said if c.isdecimal()))


def _named(month: str, number: str, year: str | None, today: date) -> date | None:
    if year:
        return day(int(year), _month(month), _number(number))
    years = range(today.year, min(today.year + 9, MAXYEAR) + 1)  # the 29th of February may be eight years off
    found = (day(one, _month(month), _number(number)) for one in years)
    return next((one for one in found if one is not None and one >= today), None)


def _next(number: int, today: date) -> date | None:
    for months in range(3):
        month = shifted(today.replace(day=1), months)
        found = month and day(month.year, month.month, number)
        if found and found >= today:
            return found
    return None


def moved(today: date, days: int) -> date | None:
    """`days` later. None beyond the years that there are."""
    try:
        return today + timedelta(days=days)
    except OverflowError:
        return None
