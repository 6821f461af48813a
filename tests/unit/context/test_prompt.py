"""The prompt: its budget, its order, its account, and the beginning that stays."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.context import MESSAGE_OVERHEAD, Material, Remembered, Summary, build_prompt, estimate_tokens
from domain.context.blocks import due, next_block
from domain.context.told import summary_limit

SYSTEM = "Be brief."
LEAST = estimate_tokens(SYSTEM) + MESSAGE_OVERHEAD

words = st.text("abc .?\n<|>", min_size=1, max_size=300)
turns = st.lists(st.tuples(words, words), min_size=1, max_size=40)
materials = st.lists(
    st.builds(Material, st.sampled_from(["similar", "products"]), st.lists(words, max_size=4).map(tuple)),
    max_size=2,
    unique_by=lambda one: one.kind,
)


class Words:
    """A tokenizer that counts words; it remembers what it was asked."""

    name = "words"

    def __init__(self):
        self.asked = []

    def count(self, text):
        self.asked.append(text)
        return len(text.split())


def history(said, answered=True):
    """Turns of a question and its reply; the last one without unless `answered`."""
    told = []
    for turn, (question, reply) in enumerate(said):
        order = 2 * turn + 1
        told += [Remembered.of(order, order, "user", question), Remembered.of(order, order + 1, "assistant", reply)]
    return told if answered else told[:-1]


def included(prompt):
    return sum(one["tokens"] for one in prompt.account["elements"] if one["included"])


@given(turns, st.integers(10, 2000), st.integers(2, 60), materials, st.booleans(), st.sampled_from([SYSTEM, None]))
@settings(max_examples=150, deadline=None)
def test_a_prompt_fits_its_budget_and_its_account_adds_up(said, budget, most, material, prepared, system):
    told = history(said, answered=False)
    order = told[-1].order
    summary = Summary()
    if prepared and len(said) > 2:
        summary = summary.extended(told[: len(told) // 2], summary_limit(budget))
    prompt = build_prompt(system, told, order, 1, budget, most, summary=summary, material=material)
    own = told[-1].tokens + (LEAST if system else 0)
    assert prompt.tokens <= max(budget, own)
    assert prompt.tokens == included(prompt)
    assert prompt.account["counted_by"] == "estimate"
    built = sum(estimate_tokens(one["content"]) + MESSAGE_OVERHEAD for one in prompt.messages)
    assert built <= prompt.tokens, "parts are counted one by one"
    assert prompt.messages[-1]["role"] == "user" and prompt.messages[-1]["content"].endswith(told[-1].content)
    gone = {m.order for m in told if m.order < prompt.window_from}
    dropped = [one for one in prompt.account["elements"] if one["kind"] == "history" and not one["included"]]
    assert bool(gone) == bool(dropped)
    if gone and not any("too large" in one["reason"] for one in dropped):
        assert prompt.summary.until >= max(gone), "what is dropped is summarised"


@given(turns)
@settings(max_examples=50, deadline=None)
def test_history_is_told_in_order_of_turns_whatever_the_order_of_commits(said):
    told = history(said)
    shuffled = sorted(told, key=lambda one: (one.role, one.seq))
    prompt = build_prompt(None, shuffled, told[-1].order, 1, 10**6)
    assert [one["content"] for one in prompt.messages] == [one.content for one in told]
    roles = [one["role"] for one in prompt.messages]
    assert roles == ["user", "assistant"] * (len(told) // 2)


def conversation(said, budget, most=100, material=()):
    """The prompts of all turns, as a conversation's owner has them built."""
    window, summary, start = [], Summary(), 1
    for question, reply in history_pairs(said):
        window.append(question)
        prompt = build_prompt(SYSTEM, window, question.order, start, budget, most, summary=summary, material=material)
        yield prompt
        window.append(reply)
        start, summary = prompt.window_from, prompt.summary.since(prompt.window_from)
        window = [one for one in window if one.order >= start]
        if due(prompt, reply.tokens, len(window), most):
            summary = summary.extended(next_block(window, summary, prompt, most), summary_limit(budget))


def history_pairs(said):
    told = history(said)
    return list(zip(told[::2], told[1::2], strict=True))


@given(st.lists(st.tuples(words, words), min_size=5, max_size=60), st.integers(300, 1500))
@settings(max_examples=60, deadline=None)
def test_a_prompt_begins_as_the_one_before_unless_a_block_goes(said, budget):
    for before, now in pairwise(conversation(said, budget)):
        if now.window_from == before.window_from:
            assert now.messages[: len(before.messages)] == before.messages
        else:
            assert now.window_from > before.window_from
            assert now.messages[0] == before.messages[0], "the system prompt stays"


def test_blocks_are_large():
    prompts = list(conversation([(f"question {n} " + "x" * 60, "answer " + "y" * 200) for n in range(200)], 3000))
    blocks = sum(now.window_from != before.window_from for before, now in pairwise(prompts))
    assert 4 <= blocks < 200 / 12
    assert all(prompt.tokens <= 3000 for prompt in prompts)


def test_a_prepared_summary_takes_effect_at_the_block_boundary_and_not_before():
    said = [(f"I bought item {n} for {n} euros. " + "x" * 60, "fine " * 20) for n in range(160)]
    seen = []
    for before, now in pairwise(conversation(said, 1500)):
        if now.window_from == before.window_from:
            assert now.told == before.told
        else:
            reason = next(one["reason"] for one in now.account["elements"] if one["kind"] == "history")
            seen.append(reason)
            assert now.told.text and now.messages[1]["content"].startswith(now.told.text)
    assert len(seen) > 3 and set(seen) == {"beyond the window: dropped as one block, which the summary tells"}


def test_what_changes_each_turn_stands_with_the_turns_own_message_and_never_before_history():
    said = [(f"question {n}", f"answer {n}") for n in range(4)]
    similar = Material("similar", ("Question: a\nAnswer: b",))
    products = Material("products", ("A lamp, 20 euros",))
    plain = list(conversation(said, 4000))
    rich = list(conversation(said, 4000, material=[products, similar]))
    for one, other in zip(plain, rich, strict=True):
        assert other.messages[:-1] == one.messages[:-1] and one.bare and not other.bare
        last = other.messages[-1]["content"]
        assert last.index("Answer: b") < last.index("A lamp") < last.index("question")
        kinds = [element["kind"] for element in other.account["elements"]]
        assert kinds[-3:] == ["similar", "products", "message"]


def test_similar_exchanges_go_before_history_does_and_products_stay():
    told = history([(f"q{n} " + "x" * 390, "y" * 400) for n in range(4)], answered=False)
    material = [Material("similar", ("s" * 300,)), Material("products", ("p" * 300,))]
    prompt = build_prompt(SYSTEM, told, told[-1].order, 1, 840, material=material)
    elements = {(one["kind"], one["included"]): one["reason"] for one in prompt.account["elements"]}
    assert elements["similar", False] == "no room without dropping history"
    assert ("products", True) in elements and ("history", False) not in elements


def test_material_keeps_to_its_share():
    told = history([("q", "a")], answered=False)
    prompt = build_prompt(None, told, 1, 1, 1000, material=[Material("products", ("p" * 400,) * 20)])
    told_of = {one["included"]: one for one in prompt.account["elements"] if one["kind"] == "products"}
    assert told_of[True]["tokens"] <= 150 and told_of[False]["reason"] == "beyond its share"
    long = build_prompt(None, told, 1, 1, 1000, material=[Material("products", ("p" * 40_000,))])
    assert next(one for one in long.account["elements"] if one["included"] and one["kind"] == "products")["tokens"] > 0


def test_a_message_is_counted_once_by_each_counter():
    counter, told = Words(), history([("one two three", "four five")] * 5, answered=False)
    prompt = build_prompt("be kind", told, told[-1].order, 1, 4000, counter=counter)
    assert prompt.account["counted_by"] == "words"
    assert prompt.tokens == 2 + 5 * 3 + 4 * 2 + MESSAGE_OVERHEAD * 10
    build_prompt("be kind", told, told[-1].order, 1, 4000, counter=counter)
    assert sorted(counter.asked) == sorted(["be kind"] * 2 + ["one two three"] * 5 + ["four five"] * 4)


def test_a_large_message_leaves_no_room_for_history_and_little_for_the_rest():
    told = history([("I live in Oslo. " + "x" * 400, "y" * 400)] * 6 + [("z" * 3200, "")], answered=False)
    prompt = build_prompt(SYSTEM, told, told[-1].order, 1, 1000, summary=Summary())
    assert prompt.window_from == told[-1].order and prompt.tokens <= 1000
    assert "lives in: Oslo" in prompt.messages[1]["content"]
    huge = history([("I live in Oslo.", "y")] * 3 + [("z" * 9000, "")], answered=False)
    alone = build_prompt(SYSTEM, huge, huge[-1].order, 1, 1000, summary=Summary())
    assert [one["content"] for one in alone.messages] == [SYSTEM, "z" * 9000]
    reasons = {one["kind"]: one["reason"] for one in alone.account["elements"] if not one["included"]}
    assert reasons["facts"] == reasons["summary"] == "no room beside what must be told"


def test_a_block_too_large_for_a_waiting_turn_is_left_to_be_summarised_later():
    told = history([("I live in Oslo.", "y" * 40)] * 60, answered=False)
    prompt = build_prompt(SYSTEM, told, told[-1].order, 1, 900, summary=Summary())
    assert prompt.summary == Summary() and not prompt.told.text
    assert prompt.account["elements"][1]["reason"].endswith("too large to be summarised at once")


def test_a_summary_that_lacks_turns_is_not_extended():
    told = history([("I live in Oslo.", "y" * 40)] * 20, answered=False)
    prompt = build_prompt(SYSTEM, told, told[-1].order, 1, 300, summary=Summary(), extend=False)
    assert prompt.window_from > 1 and prompt.summary == Summary() and not prompt.told.text


@pytest.mark.parametrize("budget", [1500, 3000, 7000])
def test_what_was_told_early_is_still_there_late(budget):
    said = [("My name is Ada Quist and I am allergic to zinc.", "noted")]
    said += [(f"And how about lamp {n}? " + "x" * 60, "It is a lamp. " + "y" * 300) for n in range(150)]
    *_, last = conversation(said, budget)
    assert "Ada Quist" in last.messages[1]["content"] and "zinc" in last.messages[1]["content"]
