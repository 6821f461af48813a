"""Known words near a misspelt one, by deletions (SymSpell: Garbe 2012, github.com/wolfgarbe/SymSpell), in flat arrays.

A word and its misspelling become equal when up to the distance allowed is deleted from each. Only the first PREFIX
characters are deleted from, which keeps the index small: 29 hashes for a word of eight letters or more, 16 bytes each.
"""

from array import array
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import OSA

PREFIX = 7
SHORTEST = 4
MOST_COMPARED = 200


def edits(length: int) -> int:
    """How many letters may be wrong, missing, added or exchanged in a word of so many: none under 4, one under 8, two
    from there on."""
    return 0 if length < SHORTEST else 1 if length < 8 else 2


class NearWords:
    """An index of words; numbers and those under SHORTEST characters are not in it."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known
        keys, owners = array("q"), array("q")
        for place, word in enumerate(known):
            if (most := edits(len(word))) and word.isalpha():
                parts = _deletions(word[:PREFIX], most)
                keys.extend(map(hash, parts))
                owners.extend([place] * len(parts))
        unordered = np.frombuffer(keys, dtype=np.int64)
        order = np.argsort(unordered, kind="stable")
        self._keys = unordered[order]
        self._owners = np.frombuffer(owners, dtype=np.int64)[order].astype(np.int32)

    def near(self, word: str) -> list[tuple[int, int]]:
        """Place in `known` and distance (optimal string alignment) of those near enough, the nearest first. Words under
        eight letters share their first one, unless the first two changed places: few people miss it."""
        if not len(self._keys) or len(word) < SHORTEST or len(word) > 40 or not word.isalpha():
            return []
        most = 1 if len(word) < PREFIX - 1 else 2
        wanted = np.array(list(map(hash, _deletions(word[:PREFIX], most))), dtype=np.int64)
        left, right = self._keys.searchsorted(wanted, "left"), self._keys.searchsorted(wanted, "right")
        places: set[int] = set()
        for first, last in zip(left.tolist(), right.tolist(), strict=True):
            if last > first:
                places.update(self._owners[first : min(last, first + MOST_COMPARED)].tolist())
        found = []
        for place in places:
            other = self._known[place]
            allowed = edits(len(other))
            begins = word[0] == other[0] or word[:2] == other[1::-1]
            if abs(len(other) - len(word)) > allowed or not (begins or len(other) > PREFIX):
                continue
            if (distance := OSA.distance(word, other, score_cutoff=allowed)) <= allowed:
                found.append((place, int(distance)))
        return sorted(found, key=lambda one: (one[1], one[0]))


def _deletions(word: str, most: int) -> set[str]:
    """The word with none to `most` of its characters left out, each form once."""
    forms = last = {word}
    for _ in range(most):
        last = {form[:place] + form[place + 1 :] for form in last for place in range(len(form))}
        forms = forms | last
    return forms
