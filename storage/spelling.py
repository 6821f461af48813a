"""What a misspelt word was meant to be."""

from collections.abc import Iterable

SHORT = 7  # letters; a shorter word may have one slip, a longer one two


def corrected(word: str, known: Iterable[str]) -> str | None:
    """The nearest of the known words, by the least number of letters that are wrong, missing, too many or exchanged
    with their neighbour; None where none is near. (Optimal string alignment, after Damerau, "A technique for computer
    detection and correction of spelling errors", CACM 1964.)"""
    most = 1 if len(word) < SHORT else 2
    near = [
        (slips, one)
        for one in known
        if one.isalpha() and abs(len(one) - len(word)) <= most and (slips := distance(word, one)) <= most
    ]
    return min(near)[1] if near else None


def distance(a: str, b: str) -> int:
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
