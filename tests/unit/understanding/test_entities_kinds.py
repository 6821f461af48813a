"""What each built-in kind finds and what it takes it for."""

from typing import Any

import pytest

from tests.unit.understanding.test_entities import extractor, slot


def said(kind: str, text: str, **more: Any) -> list[tuple[str, Any]]:
    return [(entity.text, entity.value) for entity in extractor(slot("s", kind, **more)).extract(text)]


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (
            "number",
            "twenty-five and 1,299.50 and 1.299,50",
            [("twenty-five", 25), ("1,299.50", 1299.5), ("1.299,50", 1299.5)],
        ),
        (
            "number",
            "-4 degrees, two hundred and five, 1,000,000",
            [("-4", -4), ("two hundred and five", 205), ("1,000,000", 1000000)],
        ),
        ("number", "that one is mine", []),
        ("number", "abc1 1abc", []),
        ("quantity", "3x milk, x2 eggs", [("3", 3), ("2", 2)]),
        ("quantity", "a dozen eggs, a pair of shoes", [("a dozen", 12), ("a pair", 2)]),
        (
            "price",
            "$19.99 or 20 euros",
            [("$19.99", {"amount": 19.99, "currency": "USD"}), ("20 euros", {"amount": 20, "currency": "EUR"})],
        ),
        ("price", "£1,250", [("£1,250", {"amount": 1250, "currency": "GBP"})]),
        ("price", "1.250,00 €", [("1.250,00 €", {"amount": 1250, "currency": "EUR"})]),
        ("price", "twenty bucks", [("twenty bucks", {"amount": 20, "currency": "USD"})]),
        ("price", "€5k", [("€5k", {"amount": 5000, "currency": "EUR"})]),
        ("price", "99 cents", [("99 cents", {"amount": 0.99, "currency": "USD"})]),
        ("price", "20 bananas, or try 2", []),
        (
            "percentage",
            "20% or 12.5 percent or ten percent",
            [("20%", 20), ("12.5 percent", 12.5), ("ten percent", 10)],
        ),
        ("email", "to A.b+c@Example.COM.", [("A.b+c@Example.COM", "A.b+c@example.com")]),
        ("email", "a@b or @handle", []),
        ("phone", "+44 20 7946 0958", [("+44 20 7946 0958", "+442079460958")]),
        ("phone", "(555) 123-4567 or 555-1234", [("(555) 123-4567", "5551234567"), ("555-1234", "5551234")]),
        ("phone", "on 2026-03-05", []),
        ("url", "(see https://x.example/a_(b)?q=1).", [("https://x.example/a_(b)?q=1", "https://x.example/a_(b)?q=1")]),
        (
            "url",
            "www.shop.example/new, or shop.com",
            [("www.shop.example/new", "www.shop.example/new"), ("shop.com", "shop.com")],
        ),
        ("url", "mail a@shop.com", []),
        ("order_number", "order #A-12345", [("#A-12345", "A-12345")]),
        ("order_number", "invoice no. 12345 is wrong", [("12345", "12345")]),
        ("order_number", "order some shirts", []),
        ("order_number", "order 100 shirts", []),
        ("order_number", "ticket #123", [("#123", "123")]),
        ("order_number", "where is 00123842?", [("00123842", "00123842")]),
        ("colour", "a gray shirt and a navy blue one", [("gray", "grey"), ("navy blue", "navy")]),
        ("colour", "I trust you", []),
        (
            "size",
            "size M, EU 42 or 9.5 inch, extra large",
            [("M", "M"), ("EU 42", "EU 42"), ("9.5 inch", "9.5 INCH"), ("extra large", "XL")],
        ),
        ("size", "it's mine, with 2 in stock", []),
        ("time", "14:30, 2.30 pm. or 5pm.", [("14:30", "14:30"), ("2.30 pm", "14:30"), ("5pm", "17:00")]),
        (
            "time",
            "12 am, 12 p.m., noon, midnight",
            [("12 am", "00:00"), ("12 p.m.", "12:00"), ("noon", "12:00"), ("midnight", "00:00")],
        ),
        ("time", "half past six in the evening", [("half past six in the evening", "18:30")]),
        ("time", "quarter to 9 or ten to one pm", [("quarter to 9", "08:45"), ("ten to one pm", "12:50")]),
        (
            "time",
            "7 o'clock, 8 at night, morning 11",
            [("7 o'clock", "07:00"), ("8 at night", "20:00"), ("morning 11", "11:00")],
        ),
        ("time", "10 past 3, 5 minutes to 3", [("10 past 3", "03:10"), ("5 minutes to 3", "02:55")]),
        ("time", "from 5 to 6pm, from five to six", [("6pm", "18:00")]),
        ("time", "25:00, 13 pm, 12:75", []),
    ],
)
def test_a_kind_finds_its_values(kind: str, text: str, wanted: list[tuple[str, Any]]) -> None:
    assert said(kind, text) == wanted


def test_colours_may_be_misspelt_where_the_slot_says_so() -> None:
    assert said("colour", "a dark bluue shirt, yelow socks") == []
    assert said("colour", "a dark bluue shirt, yelow socks", fuzzy=True) == [
        ("dark bluue", "dark blue"),
        ("yelow", "yellow"),
    ]


def test_kinds_beside_one_another_share_the_text() -> None:
    kinds = ("number", "price", "percentage", "date", "time", "size")
    every = extractor(*(slot(kind, kind) for kind in kinds))
    text = "2 shirts in size 42 for $19.99, 20% off, by 7 March 2026 at 5pm"
    assert [(entity.slot, entity.text) for entity in every.extract(text)] == [
        ("number", "2"),
        ("size", "42"),
        ("price", "$19.99"),
        ("percentage", "20%"),
        ("date", "7 March 2026"),
        ("time", "5pm"),
    ]
