"""Dates as ISO 8601: written ones, and those that count from today ("in two weeks", "next Friday", "last month")."""

from collections.abc import Iterator
from datetime import date

from deployments.entities.candidates import Candidate, bounded
from deployments.entities.days import moved, shifted, written_dates
from deployments.entities.numbers import SPOKEN, number
from deployments.entities.regular import built_in

_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_WEEKDAY = r"(mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_FIXED = {
    "day after tomorrow": 2,
    "day before yesterday": -2,
    "tomorrow": 1,
    "tmrw": 1,
    "tomorow": 1,
    "tommorow": 1,
    "tommorrow": 1,
    "yesterday": -1,
    "today": 0,
    "tonight": 0,
}
_DAYS = built_in("|".join(_FIXED))
_COUNT = rf"(a|an|\d{{1,4}}|{SPOKEN}|a couple of|a few)"
_AHEAD = built_in(
    rf"(?:in|within)\s{_COUNT}\s(day|week|fortnight|month|year)s?|{_COUNT}\s(day|week|fortnight|month|year)s?\sfrom\s(?:now|today)"
)
_AGO = built_in(rf"{_COUNT}\s(day|week|fortnight|month|year)s?\s(?:ago|before today)")
_NAMED = built_in(
    rf"(?:(this coming|this|next|last|coming|past)\s)?{_WEEKDAY}(?:\s(?:of\s)?(this|next|last)\sweek)?"
    rf"|(this|next|last)\sweek(?:\son)?\s{_WEEKDAY}"
)
_PERIOD = built_in(r"(this coming|this|next|last|the past|coming)\s(weekend|week|month|year)")
_DAYS_OF = {"day": 1, "week": 7, "fortnight": 14}
_SHORT = frozenset(["sat", "sun", "wed"])


def dates(text: str, today: date, day_first: bool) -> list[Candidate]:
    """A day as `2026-03-05`, a month as `2026-03`, a week as `2026-W10`, a year as `2026`, a weekend as an interval. A
    bare weekday is the next one after `today`, "this" one may be today; "next week" begins on a Monday."""
    return [*written_dates(text, today, day_first), *_relative(text, today)]


def _relative(text: str, today: date) -> Iterator[Candidate]:
    for m in _DAYS.finditer(text):
        yield from _at(text, m.span(), moved(today, _FIXED[" ".join(m.group().lower().split())]))
    for m in _AHEAD.finditer(text):
        count, unit = (m.group(1), m.group(2)) if m.group(1) else (m.group(3), m.group(4))
        yield from _at(text, m.span(), _shift(today, _counted(count), unit.lower()))
    for m in _AGO.finditer(text):
        yield from _at(text, m.span(), _shift(today, -_counted(m.group(1)), m.group(2).lower()))
    for m in _NAMED.finditer(text):
        start, end = m.span()
        if m.group() in _SHORT:  # words too; a day is written "Sat"
            continue
        if m.group(4):
            found = _in_week(today, m.group(4).lower(), m.group(5))
        elif m.group(3):
            found = _in_week(today, m.group(3).lower(), m.group(2))
        else:
            found = _weekday(today, (m.group(1) or "").lower(), m.group(2))
        yield from _at(text, (start, end), found)
    for m in _PERIOD.finditer(text):
        if (period := _period(today, m.group(1).lower(), m.group(2).lower())) and bounded(text, *m.span()):
            yield Candidate(m.start(), m.end(), period, 0.9)


def _at(text: str, span: tuple[int, int], found: date | None) -> Iterator[Candidate]:
    if found is not None and bounded(text, *span):
        yield Candidate(span[0], span[1], found.isoformat(), 0.95)


def _counted(said: str) -> int:
    low = said.lower()
    special = {"a": 1, "an": 1, "a couple of": 2, "a few": 3}.get(low)
    return special if special is not None else int(number(low) or 0)


def _shift(today: date, count: int, unit: str) -> date | None:
    if unit in _DAYS_OF:
        return moved(today, count * _DAYS_OF[unit])
    return shifted(today, count * (12 if unit == "year" else 1))


def _place(weekday: str) -> int:
    return next(place for place, name in enumerate(_WEEKDAYS) if name.startswith(weekday.lower()[:3]))


def _weekday(today: date, which: str, weekday: str) -> date | None:
    ahead = (_place(weekday) - today.weekday()) % 7
    if which in ("last", "past"):
        return moved(today, (ahead or 7) - 7 if ahead else -7)
    return moved(today, ahead if which == "this" else ahead or 7)


def _in_week(today: date, which: str, weekday: str) -> date | None:
    weeks = {"this": 0, "next": 7, "last": -7}[which]
    return moved(today, weeks + _place(weekday) - today.weekday())


def _period(today: date, which: str, unit: str) -> str | None:
    step = {"next": 1, "last": -1, "the past": -1}.get(which, 0)
    if unit == "year":
        return f"{today.year + step:04}"
    if unit == "month":
        month = shifted(today.replace(day=1), step)
        return f"{month.year:04}-{month.month:02}" if month else None
    monday = moved(today, 7 * step - today.weekday())
    if monday is None:
        return None
    if unit == "week":
        year, week, _ = monday.isocalendar()
        return f"{year:04}-W{week:02}"
    saturday, sunday = moved(monday, 5), moved(monday, 6)
    return f"{saturday}/{sunday}" if saturday and sunday else None
