"""Which facts the patterns find, and in which sentences they find none."""

import pytest

from domain.context import Fact, facts_in
from domain.context.facts import line

TOLD = [
    ("Hi, my name is Anna Schmidt and I live in Leipzig, Germany.", "name: Anna Schmidt|lives in: Leipzig, Germany"),
    ("Hello there, I'm Tom.", "name: Tom"),
    ("I'm Tom Okafor and I have a question", "name: Tom Okafor"),
    ("This is Henrike from Bonn", "name: Henrike"),
    ("please call me Beatrix", "name: Beatrix"),
    ("I recently moved to Oslo.", "lives in: Oslo"),
    ("I'm originally from Peru", "comes from: Peru"),
    ("My order number is AB-12345.", "order: AB-12345"),
    ("it is about order #99812 from May", "order: 99812"),
    ("I'm allergic to peanuts and shellfish.", "allergic to: peanuts and shellfish"),
    ("My daughter has a severe nut allergy", "allergic to: nut"),
    ("I am lactose-intolerant", "intolerant of: lactose"),
    ("I’ve been a vegetarian for years", "diet: vegetarian"),
    ("I wear size M.", "size: M"),
    ("My shoe size is 42.5.", "shoe size: 42.5"),
    ("I'd always prefer dark roast over light.", "prefers: dark roast over light"),
    ("I hate plastic handles.", "dislikes: plastic handles"),
    ("My dog's name is Rex.", "dog's name: Rex"),
    ("my delivery address is 12 Main St, Berlin.", "delivery address: 12 Main St, Berlin"),
    ("My budget is 1,300.50 euros, all in all.", "budget: 1,300.50 euros"),
    ("Reach me at +49 170 1234567", "phone: +49 170 1234567"),
    ("You can mail anna.s@shop.example.org.", "e-mail: anna.s@shop.example.org"),
    ("I work as a nurse in a hospital", "works: as a nurse in a hospital"),
    ("I'm a retired teacher", "job: retired teacher"),
    ("I was born in 1984", "born: in 1984"),
    ("My favourite colour is teal but not too bright!", "favourite colour: teal"),
    ("my wife Maria ordered it", "wife: Maria"),
    ("We decided on the oak table because it is cheaper", "decided on: the oak table"),
    ("Please remember that the gate code is 4711", "note: the gate code is 4711"),
    ("I have two cats.", "has: two cats"),
]
NOT_TOLD = [
    "Is my name Anna?",
    "I am looking for shoes",
    "I'm Sorry about that",
    "My question is how this works",
    "My order is late",
    "I like that",
    "I have a question about the lamp",
    "Do you live in Oslo?",
    "I'm German.",
    "This is OK.",
    "The vegan leather looks nice",
    "the weather is nice today",
    "",
]


@pytest.mark.parametrize(("text", "facts"), TOLD, ids=lambda value: value[:40])
def test_a_fact_is_found(text, facts):
    found = [line(fact) for fact in facts_in(text, 7)]
    assert set(facts.split("|")) <= set(found)
    assert all(fact.order == 7 for fact in facts_in(text, 7))


@pytest.mark.parametrize("text", NOT_TOLD)
def test_what_tells_nothing_makes_no_fact(text):
    assert facts_in(text, 1) == []


def test_values_that_may_hold_at_once_do_not_push_each_other_out():
    keys = [fact.key for text in ("I love tea", "I love rye bread") for fact in facts_in(text, 1)]
    assert len(set(keys)) == 2
    assert facts_in("My name is Ada.", 1)[0].key == facts_in("My name is Bea.", 5)[0].key == "name"


def test_a_value_is_bounded_and_a_huge_message_is_read_in_time():
    [fact] = facts_in("My plan is " + "very " * 200, 1)
    assert len(fact.value) <= 120
    assert facts_in("my " * 10_000 + "x" * 20_000, 1) == []
    assert facts_in("I live in Rome. " * 2000, 3)[-1] == Fact("lives in", "Rome", 3)
