"""The hot context: what a prompt may tell, and how much of it the conversation's model has read."""

from datetime import UTC, datetime

from actors.window import Window
from domain.context import Material, Prompt, Remembered, Section, Summary, build_prompt
from domain.context.told import Told
from domain.conversation import Conversation

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def conversation(system: str | None = None) -> Conversation:
    return Conversation(id="conv_1", tenant_id="ten_1", system_prompt=system, created_at=NOW, updated_at=NOW)


def talk(turns: int, system: str | None = None) -> Window:
    """Turns of ten tokens a message; overheads make that 14."""
    window = Window(conversation(system), 1, [])
    for seq in range(1, 2 * turns, 2):
        window.asked(seq, "x" * 40)
        window.replied(seq, seq + 1, "y" * 40, "strong", True)
    return window


def test_what_the_model_has_read_is_all_before_its_last_reply():
    window = talk(2)
    window.asked(5, "x" * 40)
    assert window.model == "strong" and window.shared_tokens(1, 5) == 14 * 3
    window.replied(5, 6, "y" * 40, "cheap", True)
    assert window.model == "cheap" and window.shared_tokens(1, 7) == 14 * 5


def test_a_cut_leaves_the_system_prompt_and_a_changed_one_nothing():
    window = talk(2, "s" * 40)
    assert window.shared_tokens(1, 5) == 14 + 14 * 3
    assert window.shared_tokens(3, 5) == 14
    window.conversation = conversation("another")
    assert window.shared_tokens(1, 5) == 0


def test_a_reply_made_anew_takes_the_place_of_the_one_before():
    window = talk(2)
    size = window.size
    window.replied(1, 5, "z" * 40, "cheap", True)
    assert [message.seq for message in window.messages if message.order == 1] == [1, 5] and window.size == size
    assert window.shared_tokens(1, 7) == 14  # the message that was answered anew, and nothing behind it
    window.replied(1, 6, "half", "cheap", False)
    assert [message.seq for message in window.messages if message.order == 1] == [1, 5]


def test_what_lies_before_the_window_is_not_taken_in():
    window = talk(3)
    window.forget(5)
    assert [message.seq for message in window.messages] == [5, 6]
    window.replied(1, 9, "late", "cheap", True)
    assert [message.seq for message in window.messages] == [5, 6] and window.model == "strong"


def test_a_prompt_tells_its_message_and_what_stands_before_it():
    window = talk(3)
    assert [message.seq for message in window.before(3)] == [1, 2, 3]


def test_an_owner_that_takes_over_knows_the_last_replys_model():
    recent = [Remembered.of(1, 1, "user", "x" * 40), Remembered.of(1, 2, "assistant", "y" * 40)]
    window = Window(conversation(), 1, recent, "strong")
    assert window.model == "strong" and window.shared_tokens(1, 3) == 14


def prompt_of(window: Window, order: int, budget: int, material: tuple[Material, ...] = ()) -> Prompt:
    told = window.before(order)
    system = window.conversation.system_prompt
    return build_prompt(system, told, order, window.start, budget, summary=window.summary, material=material)


def test_what_was_told_before_history_counts_as_read_as_long_as_it_stays():
    window = talk(12, "s" * 40)
    window.asked(25, "x" * 40)
    prompt = prompt_of(window, 25, 250)
    assert prompt.window_from > 1 and prompt.summary is not None and prompt.summary.until == prompt.window_from - 2
    window.replied(25, 26, "y" * 40, "strong", True)
    window.answered(prompt)
    window.forget(prompt.window_from, prompt.summary)
    assert not window.gap and window.summary.until == prompt.summary.until
    window.asked(27, "x" * 40)
    following = prompt_of(window, 27, 500)
    assert window.shared_tokens(following.window_from, 27, prompt.told) == prompt.tokens
    other = Told("Quoted" + prompt.told.text[6:-20] + "something else", prompt.told.tokens)
    shared = window.shared_tokens(following.window_from, 27, other)
    assert 14 < shared <= 14 + prompt.told.tokens, "the system prompt, and what both texts begin with"


def test_a_message_that_was_told_with_material_will_not_stand_so_again():
    window = talk(2)
    window.asked(5, "x" * 40)
    prompt = prompt_of(window, 5, 2000, (Material("products", ("a lamp",)),))
    window.replied(5, 6, "y" * 40, "strong", True)
    window.answered(prompt)
    assert not prompt.bare and window.shared_tokens(1, 7) == 14 * 4
    window.asked(7, "x" * 40)
    window.answered(prompt_of(window, 7, 2000))
    window.replied(7, 8, "y" * 40, "strong", True)
    assert window.shared_tokens(1, 9) == 14 * 7


def test_turns_that_went_without_a_summary_leave_a_gap():
    window = talk(4)
    assert not window.gap
    window.forget(5)
    assert window.gap
    assert Window(conversation(), 9, []).gap and not Window(conversation(), 1, []).gap
    summary = Summary((Section(1, 7, 8, "- a"),))
    assert not Window(conversation(), 9, [], summary=summary).gap
    assert Window(conversation(), 11, [], summary=summary).gap
