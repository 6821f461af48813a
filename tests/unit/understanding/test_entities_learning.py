"""Definitions learned from annotated examples."""

import pytest

from deployments.entities.annotated import Annotated, Span, parse
from deployments.entities.extractor import Extractor
from deployments.entities.learning import learn
from deployments.entities.shapes import pattern
from domain.errors import InvalidSlot
from domain.slots import SlotDefinition
from tests.unit.understanding.test_entities import found


def learned(*marked: str, lists: dict[str, list[str]] | None = None) -> dict[str, SlotDefinition]:
    return {slot.name: slot for slot in learn([parse(text) for text in marked], lists).slots}


def test_marks_are_spans_and_places() -> None:
    text = parse("cancel {{order number: A-1}} for {{Person Name}}, é {{city:Köln}}!")
    assert text == Annotated(
        "cancel A-1 for Person Name, é Köln!",
        (Span("order_number", 7, 10), Span("city", 30, 34)),
        (Span("person_name", 15, 26),),
    )
    assert parse("no marks {here}") == Annotated("no marks {here}")


@pytest.mark.parametrize("marked", ["{{ : x}}", "{{!!}}", "{{1st: a}}"])
def test_a_mark_without_a_name_is_refused(marked: str) -> None:
    with pytest.raises(ValueError, match="names no slot"):
        parse(marked)


def test_codes_become_a_pattern_that_knows_codes_it_never_saw() -> None:
    slots = learn([parse(f"where is my parcel {{{{parcel: PX-{n}}}}} now") for n in (12345, 99321, 4411)]).slots
    assert [(slot.kind, slot.pattern) for slot in slots] == [("pattern", r"PX-\d{3,6}")]
    assert found(Extractor(slots).extract("px-70707 please")) == [("parcel", "px-70707", "px-70707")]


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [
        (["#11111", "#22222"], r"#\d{5}"),
        (["A-12", "B-123"], r"[A-Za-z]{1}-\d{1,4}"),
        (["1234", "123456", "12345678"], r"\d{2,16}"),
        (["a.1", "a.2"], r"a\.\d{1}"),
        (["12", "X-9"], r"X-\d{1}|\d{2}"),
        ([], None),
        (["1a1a1", "a1a1", "1-1", "1.1", "1/1", "1_1", "1+1", "1=1", "1~1"], None),
    ],
)
def test_a_pattern_has_the_shapes_of_its_codes(codes: list[str], wanted: str | None) -> None:
    assert pattern(codes) == wanted


def test_values_that_a_kind_finds_are_of_that_kind() -> None:
    slots = learned(
        "write to {{mail: a@b.example}} by {{when: tomorrow}}",
        "write to {{mail: x.y@z.example}} by {{when: 5 May 2027}}",
        "{{count: two}} tickets at {{at: 5pm}}, {{count: 3}} more at {{at: 17:30}}",
    )
    assert {name: slot.kind for name, slot in slots.items()} == {
        "mail": "email",
        "when": "date",
        "count": "number",
        "at": "time",
    }


def test_names_become_a_list_with_their_spellings_as_synonyms() -> None:
    examples = [
        Annotated("open a gold account", (Span("plan", 7, 11, "Gold"),)),
        Annotated("open the golden account", (Span("plan", 9, 15, "Gold"),)),
        Annotated("open a premium account", (Span("plan", 7, 14, "Premium"),)),
    ]
    (plan,) = learn(examples, {"plan": ["Platinum"]}).slots
    assert [(value.value, value.synonyms) for value in plan.values] == [
        ("Gold", ["golden"]),
        ("Premium", []),
        ("Platinum", []),
    ]
    assert found(Extractor([plan]).extract("golden or platnum account")) == [
        ("plan", "golden", "Gold"),
        ("plan", "platnum", "Platinum"),
    ]


def test_words_beside_two_slots_of_one_list_tell_them_apart() -> None:
    cities = ["Boston", "Seattle", "Denver", "Chicago"]
    trips = [
        f"a ticket from {{{{origin: {one}}}}} to {{{{destination: {two}}}}} please"
        for one in cities
        for two in cities
        if one != two
    ]
    slots = learned(*trips, "what is the weather like", "talk to me")
    assert "from" in slots["origin"].cues and "from" not in slots["destination"].cues
    trip = Extractor(list(slots.values())).extract("to Denver from Boston")
    assert found(trip) == [("destination", "Denver", "Denver"), ("origin", "Boston", "Boston")]


def test_a_name_that_means_something_else_elsewhere_needs_a_cue() -> None:
    plans = [f"open a {{{{plan: {name}}}}} account" for name in ("free", "gold")] * 2
    elsewhere = [f"is the {thing} free" for thing in ("call", "delivery", "return", "wrapping")]
    (plan,) = learned(*plans, *elsewhere).values()
    assert {value.value: value.needs_cue for value in plan.values} == {"free": True, "gold": False}
    assert not Extractor([plan]).extract("delivery is free")


def test_a_place_without_values_is_of_the_kind_it_is_named_for() -> None:
    slots = learned("cancel order {{Order Number}} now", "track order {{Order Number}}", "what is it")
    assert slots["order_number"].kind == "order_number"
    assert "order" in slots["order_number"].cues


def test_a_place_without_values_and_a_name_of_its_own_takes_a_list() -> None:
    marked = ["deliver to {{Delivery City}} please"] * 3
    with pytest.raises(InvalidSlot, match="slot delivery_city: examples show where it stands and never a value"):
        learned(*marked)
    slots = learned(*marked, lists={"delivery_city": ["Rome"]})
    assert [value.value for value in slots["delivery_city"].values] == ["Rome"]


def test_ordinary_words_are_those_that_stand_outside_values_often() -> None:
    ordinary = learn([parse("the glod rush of {{plan: gold}} users")] * 3).ordinary
    assert ordinary == {"the", "glod", "rush", "of", "users"}


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Annotated("to Rome", (Span("delivery city", 3, 7),)), "slot delivery city: a name begins with a letter"),
        (Annotated("so 😀", (Span("mood", 3, 4),)), "slot mood: none of its values has a letter or digit"),
        (Annotated("x" * 300, (Span("long", 0, 300),)), "slot long: none of its values"),
        (Annotated("nothing", (Span("empty", 3, 3),)), "slot empty: none of its values"),
    ],
)
def test_examples_that_teach_no_slot_are_refused_by_name(example: Annotated, message: str) -> None:
    with pytest.raises(InvalidSlot, match=message):
        learn([example])


def test_odd_texts_teach_what_they_can() -> None:
    odd = ["\ud800 {{city: Rome}}", "w" * 70 + " {{city: Rome}}", "\u0301 {{city: Zu\u0308rich}}", "\x00"]
    (city,) = learned(*odd).values()
    assert [value.value for value in city.values] == ["Rome", "Zu\u0308rich"]


def test_nothing_is_learned_from_nothing() -> None:
    assert learn([]).slots == []
    assert learn([parse("no slots here")]).slots == []
