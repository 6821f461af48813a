"""The extractive summary and its versions, and the facts beside it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.context import Fact, Remembered, Section, Summary, estimate_tokens
from domain.context.facts import MOST_FACTS, latest, merged
from domain.context.summary import LEAST, extract
from domain.context.tokens import ESTIMATE
from domain.context.told import tell


def block(first, *said):
    """Turns of a question and a plain reply, the first one at the order `first`."""
    return [
        message
        for place, text in enumerate(said)
        for message in (
            Remembered.of(first + 2 * place, first + 2 * place, "user", text),
            Remembered.of(first + 2 * place, first + 2 * place + 1, "assistant", "Let me see what there is."),
        )
    ]


def test_what_users_tell_of_themselves_is_kept_and_small_talk_is_not():
    text = extract(block(1, "Hi!", "Thanks a lot.", "I need the desk before 3 May. How are you?", "Ok great"), 30)
    assert text.startswith("- User: I need the desk before 3 May.") and "Thanks" not in text


def test_promises_of_the_assistant_are_kept():
    told = [Remembered.of(1, 2, "assistant", "Of course. I have refunded 25.90 euros to your account. Anything else?")]
    assert extract(told, 60) == "- Assistant: I have refunded 25.90 euros to your account."


def test_the_same_messages_make_the_same_summary():
    told = block(1, "I paid 20 euros for order A-7731.", "My sister Mia has the same lamp.", "It is 3 m long.")
    assert Summary().extended(told, 400) == Summary().extended(list(reversed(told)), 400)


texts = st.lists(st.text("abc dI.?7A\n", min_size=1, max_size=200), min_size=1, max_size=20)


@given(st.lists(texts, min_size=1, max_size=12), st.integers(LEAST, 1000))
@settings(max_examples=60, deadline=None)
def test_a_summary_stays_within_its_limit_and_covers_all_it_was_given(blocks, limit):
    summary, first = Summary(), 1
    for said in blocks:
        new = block(first, *said)
        grown = summary.extended(new, limit)
        assert (grown.until, grown.seq) == (new[-1].order, new[-1].seq)
        assert estimate_tokens(grown.text(grown.until + 1)) <= limit
        if summary.sections and len(grown.sections) == len(summary.sections) + 1:
            assert grown.text(grown.until + 1).startswith(summary.text(summary.until + 1)), "it grows at its end"
        assert grown.text(summary.until + 1) == summary.text(summary.until + 1), "the version before can still be told"
        assert grown.extended(new, limit) is grown, "nothing is taken in twice"
        summary, first = grown.since(grown.until + 1), first + 2 * len(said)


def test_a_version_tells_what_stood_before_its_history():
    one = Section(1, 9, 10, "a")
    two = Section(11, 19, 20, "b")
    whole = Section(1, 19, 20, "c")
    three = Section(21, 29, 30, "d", made_by="small")
    summary = Summary((one, two, whole, three))
    assert [summary.text(start) for start in (1, 10, 19, 20, 30)] == ["", "a", "a", "c", "c\nd"]
    assert summary.since(20).sections == (whole, three) and summary.since(30).made_by == "small"
    assert summary.since(11).sections == (one, two, whole, three), "what a later history needs stays"


def test_a_models_text_is_a_section_and_is_cut_to_its_room():
    told = block(1, "I live in Bergen.")
    made = Summary().extended(told, 400, "The user lives in Bergen.", "small")
    assert (made.sections[0].text, made.made_by) == ("The user lives in Bergen.", "small")
    assert made.facts == (Fact("lives in", "Bergen", 1),)
    assert estimate_tokens(Summary().extended(told, 400, "x" * 9000, "small").text(3)) <= 200


def test_of_one_key_the_latest_fact_holds_from_the_next_block_on():
    facts = merged([Fact("lives in", "Oslo", 1), Fact("name", "Ada", 1)], [Fact("lives in", "Bergen", 31)])
    assert [one.value for one in latest(facts, 31)] == ["Oslo", "Ada"]
    assert [one.value for one in latest(facts, 32)] == ["Ada", "Bergen"]
    assert Summary((), facts).since(32).facts == (facts[1], facts[2])


def test_facts_are_bounded_and_the_oldest_go_first():
    facts = [Fact(f"k{n}", "v", n) for n in range(200)]
    assert latest(facts, 1000) == facts[-MOST_FACTS:]


@given(st.integers(60, 3000), st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_what_is_told_keeps_to_its_shares(budget, lines, facts):
    section = Section(1, 9, 10, "\n".join(f"- User: line {n} of many" for n in range(lines)))
    summary = Summary((section,), tuple(Fact(f"key {n}", "value", 1) for n in range(facts)))
    told = tell(summary, 11, budget, ESTIMATE)
    assert told.summary <= 0.4 * budget and told.facts <= 0.1 * budget
    assert estimate_tokens(told.text) <= told.tokens
    assert told == tell(summary, 11, budget, ESTIMATE)
    assert tell(summary, 9, budget, ESTIMATE).summary == 0
    if told.facts:
        assert f"key {facts - 1}: value" in told.text, "the newest facts stay"
