"""The prompts of a whole conversation, as this service builds them, and by sliding windows to compare with."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from domain.context import MESSAGE_OVERHEAD, Remembered, Summary, build_prompt, estimate_tokens
from domain.context.blocks import due, next_block
from domain.context.told import summary_limit

SYSTEM = (
    "You are the assistant of a shop for household goods. Answer briefly and kindly, in the language of the customer."
    " Say what is in stock and what it costs, never promise what you cannot know, and ask when something is not clear."
)
MOST = 100  # messages in a prompt
Messages = list[dict[str, str]]
Builder = Callable[[Iterable[tuple[str, str]], int], Iterator[Messages]]


def ours(talk: Iterable[tuple[str, str]], budget: int) -> Iterator[Messages]:
    """As a conversation's owner does: a prompt a turn, and the next block summarised ahead, after a reply."""
    window: list[Remembered] = []
    start, summary = 1, Summary()
    for turn, (question, reply) in enumerate(talk):
        order = 2 * turn + 1
        window.append(Remembered.of(order, order, "user", question))
        prompt = build_prompt(SYSTEM, window, order, start, budget, MOST, summary=summary)
        yield prompt.messages
        answer = Remembered.of(order, order + 1, "assistant", reply)
        window.append(answer)
        start, summary = prompt.window_from, (prompt.summary or summary).since(prompt.window_from)
        window = [one for one in window if one.order >= start]
        if due(prompt, answer.tokens, len(window), MOST):
            summary = summary.extended(next_block(window, summary, prompt, MOST), summary_limit(budget))


def sliding(talk: Iterable[tuple[str, str]], budget: int) -> Iterator[Messages]:
    """As many of the last messages as fit."""
    yield from _recent(talk, budget, lambda sizes, room: _fitting(sizes, room))


def halved(talk: Iterable[tuple[str, str]], budget: int) -> Iterator[Messages]:
    """What this service did before: half of the budget goes at once, and nothing is told of it."""
    told = 0

    def kept(sizes: Sequence[int], room: int) -> int:
        nonlocal told
        if sum(sizes[told:]) > room or len(sizes) - told > MOST:
            told = max(_fitting(sizes, budget // 2 - (budget - room)), len(sizes) - MOST // 2)
        return told

    yield from _recent(talk, budget, kept)


def _recent(
    talk: Iterable[tuple[str, str]], budget: int, first: Callable[[Sequence[int], int], int]
) -> Iterator[Messages]:
    said: list[tuple[str, str]] = []
    room = budget - estimate_tokens(SYSTEM) - MESSAGE_OVERHEAD
    for question, reply in talk:
        said.append(("user", question))
        told = said[first([estimate_tokens(text) + MESSAGE_OVERHEAD for _, text in said], room) :]
        yield [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in told)]
        said.append(("assistant", reply))


def _fitting(sizes: Sequence[int], room: int) -> int:
    place = len(sizes)
    while place and (room := room - sizes[place - 1]) >= 0:
        place -= 1
    return place


def tokens_of(messages: Messages) -> int:
    return sum(estimate_tokens(message["content"]) + MESSAGE_OVERHEAD for message in messages)


def identical(before: Messages, now: Messages) -> float:
    """The share of `now`'s tokens that stand at its beginning as they did in `before`'s, byte for byte."""
    same = 0
    for old, new in zip(before, now, strict=False):
        if old != new:
            if old["role"] == new["role"]:
                same += _common(old["content"], new["content"]) // 4
            break
        same += tokens_of([new])
    return same / tokens_of(now)


def _common(one: str, other: str) -> int:
    """Bytes that both texts begin with."""
    a, b = one.encode(), other.encode()
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
