"""Whether a reply is made of what a provider sent."""

from collections.abc import Sequence


def comes_from(content: str, calls: Sequence[str], whole: bool) -> bool:
    """Whether `content` can be what these calls said, each going on where the text of those before it was kept up to.

    Of a call that died, any beginning may have been kept, or nothing. `whole`: the last one that counts was kept whole.
    """
    if content in calls:
        return True
    reached = {0}
    for text in calls:
        common = _common(text, content)
        if whole and any(common[at] == len(text) == len(content) - at for at in reached):
            return True
        furthest = max(at + common[at] for at in reached)  # from 0 on all is reachable, so this has no hole
        reached = set(range(furthest + 1)) if furthest >= len(reached) else reached
    return not whole and len(content) in reached


def _common(text: str, content: str) -> list[int]:
    """For each place of `content`, and its end, how many characters from there on are the beginning of `text`.

    The Z algorithm (Gusfield, Algorithms on Strings, Trees and Sequences, 1.3), linear in both.
    """
    joined = [*text, "", *content, ""]
    lengths, left, right = [0] * len(joined), 0, 0
    for at in range(1, len(joined)):
        length = min(right - at, lengths[at - left]) if at < right else 0
        while at + length < len(joined) - 1 and length < len(text) and joined[length] == joined[at + length]:
            length += 1
        lengths[at] = length
        if at + length > right:
            left, right = at, at + length
    return lengths[len(text) + 1 :]
