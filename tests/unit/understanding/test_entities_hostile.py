"""Texts and patterns that mean harm: they end, and what is found is still true."""

import pytest
import re2

from deployments.entities.gazetteer import Gazetteer
from deployments.entities.regular import Allowance, compiled, found
from domain.slots import SlotValue
from tests.unit.understanding.test_entities import BUILT_IN, EVERYTHING, extractor, listed, slot

LONGEST = 32_000
PATTERNS = ["(a+)+$", "(a|aa)+b", "a.*b|a", "([^c]*a[^c]{50}c|.)", "(x|y|a)*z|[a]", ".*.*.*=.*|."]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "1,",
        "one ",
        "one hundred and ",
        "a@",
        "a@b.",
        "a.",
        "order ",
        "order #",
        "monday ",
        "may 1 ",
        "$",
        "$1 ",
        "a\u200b",
        "\u200b",
        "e\u0301",
        "\u0301",
        "👩\u200d👧",
        "我要",
        "http://a ",
        "x1",
        "+1 ",
        "(",
        "1/",
        "12 ",
        "in a ",
        "\ud800",
        "\x00",
        "\u202e",
        "zürich ",
        "New ",
    ],
)
def test_the_longest_text_of_anything_ends(piece: str) -> None:
    text = (piece * LONGEST)[:LONGEST]
    end = 0
    for entity in EVERYTHING.extract(text):
        assert end <= entity.start < entity.end
        assert text[entity.start : entity.end] == entity.text
        end = entity.end


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("piece", ["a", "ab", "é", "a ", "1234567890"])
def test_catastrophic_patterns_end(pattern: str, piece: str) -> None:
    text = (piece * LONGEST)[:LONGEST]
    one = extractor(slot("s", "pattern", pattern=pattern))
    assert all(text[entity.start : entity.end] == entity.text for entity in one.extract(text))


def test_patterns_stop_where_their_time_is_spent() -> None:
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    codes = "AB12 " * 5000
    pattern = compiled("s", r"[A-Z]{2}\d{2}")
    stopped = found(pattern, codes, Allowance(10, clock))
    assert 0 < len(stopped) <= 10
    assert len(found(pattern, codes[:500], Allowance())) == 100


@pytest.mark.parametrize("place", [0, 1, 1740, 1741, 1999, 2000, 2001, 3488, 5000, 31_900])
def test_a_pattern_finds_what_stands_anywhere_in_a_long_text(place: int) -> None:
    text = "é" * place + " AB-123456789 " + "é" * (LONGEST - place)
    matches = found(compiled("s", r"[A-Z]{2}-\d{9}"), text, Allowance(60))
    assert [(match.start, match.value) for match in matches] == [(place + 1, "AB-123456789")]


def test_the_engine_has_no_backtracking() -> None:
    assert re2.search(r"(a+)+$", "a" * LONGEST + "b") is None


def test_a_name_is_found_at_the_end_of_the_longest_text() -> None:
    text = "nothing here " * 2400 + "Zürich"
    assert [(entity.text, entity.start) for entity in extractor(listed("c", "Zürich")).extract(text)] == [
        ("Zürich", 31_200)
    ]


def test_a_list_of_like_names_ends() -> None:
    names = [
        SlotValue(value=" ".join("aaaa" if bits >> place & 1 else "aaab" for place in range(12)))
        for bits in range(4096)
    ]
    shared = Gazetteer(names)
    alike = extractor(slot("s", "list", gazetteer="g"), gazetteers={"g": shared})
    text = "aaac " * 6400
    assert all(text[entity.start : entity.end] == entity.text for entity in alike.extract(text))


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.parametrize("text", ["", " ", "\u200b", "\ud800", "\x00", "٣", "②", "½", "１２", "²"])
def test_short_oddities_are_no_trouble(kind: str, text: str) -> None:
    assert all(text[entity.start : entity.end] == entity.text for entity in extractor(slot("s", kind)).extract(text))
