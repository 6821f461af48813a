"""Words beside a value that say which slot it is of."""

from bisect import bisect_left
from collections.abc import Sequence

from deployments.entities.spelling import NearWords
from deployments.entities.words import Word, forms

BEFORE, AFTER = 4, 3  # words
_BONUS = 0.3


class Cues:
    """The cues of all slots, misspelt ones too. A cue of several words is known by each of them."""

    def __init__(self, cues: Sequence[Sequence[str]]) -> None:
        self._slots: dict[str, set[int]] = {}
        for rank, own in enumerate(cues):
            for form in {form for cue in own for form in forms(cue)}:
                self._slots.setdefault(form, set()).add(rank)
        self._known = list(self._slots)
        self._near = NearWords(self._known)

    def places(self, said: Sequence[Word]) -> dict[int, set[int]]:
        """Which words of the text are a cue, and of which slots (their ranks)."""
        found: dict[int, set[int]] = {}
        if not self._known:
            return found
        read: dict[str, set[int]] = {}
        for place, word in enumerate(said):
            form = word.form
            if form not in read:
                read[form] = self._slots.get(form) or {
                    rank for near, _ in self._near.near(form)[:2] for rank in self._slots[self._known[near]]
                }
            if read[form]:
                found[place] = read[form]
        return found


def bonus(rank: int, start: int, end: int, starts: Sequence[int], places: dict[int, set[int]]) -> float:
    """What a cue of the slot near `text[start:end]` adds to its score: 0 without one, most right before it. `starts`:
    of the words, in order."""
    first, after = bisect_left(starts, start), bisect_left(starts, end)
    best = 0.0
    for distance in range(1, BEFORE + 1):
        if rank in places.get(first - distance, ()):
            best = max(best, _BONUS / distance)
            break
    for distance in range(AFTER):
        if rank in places.get(after + distance, ()):
            best = max(best, _BONUS / (distance + 2))
            break
    return best
