"""Which block of history goes next: it is summarised before it has to."""

from collections.abc import Sequence

from domain.context.prompt import KEEP, KEEP_MESSAGES, Prompt
from domain.context.remembered import Remembered
from domain.context.summary import Summary

WATERMARK = 0.9  # of the budget or of the messages: from there on the next block is prepared


def due(prompt: Prompt, reply: int, messages: int, most: int) -> bool:
    """Whether the block that a later prompt will drop should be summarised. `reply`: tokens of the answer to `prompt`;
    `messages`: how many the window holds, of which a prompt tells `most` at the most."""
    return prompt.tokens + reply > WATERMARK * prompt.budget or messages > WATERMARK * most


def next_block(messages: Sequence[Remembered], summary: Summary, prompt: Prompt, most: int) -> list[Remembered]:
    """The messages that no prompt will tell once the block is dropped; none where `summary` covers a block already."""
    to_come = 1 - WATERMARK  # of either: what will be said until the block is dropped
    goal, fewest = (KEEP - to_come) * prompt.budget, (KEEP_MESSAGES - to_come) * most
    ordered = sorted(messages, key=lambda one: (one.order, one.seq))
    if not ordered or summary.until >= ordered[0].order:
        return []
    first = 0  # of the turns that stay
    for place in reversed(range(len(ordered))):
        goal, fewest = goal - ordered[place].size(prompt.counter), fewest - 1
        if goal < 0 or fewest < 0:
            first = ordered[place].order + 1
            break
    return [one for one in ordered if one.order < first]
