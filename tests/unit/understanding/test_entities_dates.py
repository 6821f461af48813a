"""Dates against a fixed today, Thursday 5 March 2026."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.entities.dates import dates
from tests.unit.understanding.test_entities_kinds import said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-07-01", "2026-07-01"),
        ("2026/7/1", "2026-07-01"),
        ("3/4/2026", "2026-03-04"),
        ("25/12/26", "2026-12-25"),
        ("3.4.2026", "2026-04-03"),
        ("7 March 2027", "2027-03-07"),
        ("March 7th, 2027", "2027-03-07"),
        ("5th of March", "2026-03-05"),
        ("4 March", "2027-03-04"),
        ("twenty-first of May", "2026-05-21"),
        ("Sept. 3", "2026-09-03"),
        ("29 February", "2028-02-29"),
        ("July 2027", "2027-07"),
        ("the 8th", "2026-03-08"),
        ("the 4th", "2026-04-04"),
        ("the 31st", "2026-03-31"),
        ("8th of next month", "2026-04-08"),
        ("today", "2026-03-05"),
        ("Tomorrow", "2026-03-06"),
        ("yesterday", "2026-03-04"),
        ("day after tomorrow", "2026-03-07"),
        ("day before yesterday", "2026-03-03"),
        ("in 3 days", "2026-03-08"),
        ("in two weeks", "2026-03-19"),
        ("in a month", "2026-04-05"),
        ("a week from now", "2026-03-12"),
        ("2 days ago", "2026-03-03"),
        ("a year ago", "2025-03-05"),
        ("Monday", "2026-03-09"),
        ("fri", "2026-03-06"),
        ("Sat", "2026-03-07"),
        ("Thursday", "2026-03-12"),
        ("this Thursday", "2026-03-05"),
        ("next Friday", "2026-03-06"),
        ("last Thursday", "2026-02-26"),
        ("last Friday", "2026-02-27"),
        ("Monday next week", "2026-03-09"),
        ("next week on Friday", "2026-03-13"),
        ("next week", "2026-W11"),
        ("last month", "2026-02"),
        ("next year", "2027"),
        ("this weekend", "2026-03-07/2026-03-08"),
    ],
)
def test_a_date_is_what_it_means_today(text: str, wanted: str) -> None:
    assert said("date", text) == [(text, wanted)]
    assert said("date", f"is it {text}?") == [(text, wanted)]


@pytest.mark.parametrize(
    "text",
    ["30 February", "2026-13-01", "45/45/2026", "the 2nd shirt", "I sat in the sun", "in 9999 years", "may"],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert said("date", text) == []


def test_the_day_comes_first_where_the_slot_says_so() -> None:
    assert said("date", "3/4/2026", day_first=True) == [("3/4/2026", "2026-04-03")]
    assert said("date", "3/25/2026", day_first=True) == [("3/25/2026", "2026-03-25")]


TEXTS = (
    "tomorrow, yesterday, in 9999 days, 9999 weeks ago, in a month, a year ago, next month, last year, next week, this "
    "weekend, last Monday, Friday next week, the 31st, 29 February, on the 30th, 31st of next month, 1/1/01, 9/9/99"
)


@given(st.dates())
def test_dates_hold_at_both_ends_of_the_calendar(today: date) -> None:
    for found in dates(TEXTS, today, False):
        first = str(found.value).split("/")[0].split("-W")[0]
        assert 0 <= int(first[:4]) <= 10_000
        assert TEXTS[found.start : found.end].strip() == TEXTS[found.start : found.end]
