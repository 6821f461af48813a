"""Names and where a text says them: a tree of words, walked from each word of the text; misspelt words may stand in."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from deployments.entities.candidates import Candidate, bounded
from deployments.entities.ordinary import ordinary_words
from deployments.entities.spelling import NearWords
from deployments.entities.words import Word, forms
from domain.slots import SlotValue

MOST_WORDS = 24  # of a name; one has 200 characters at most
MOST_EDITS = 3  # in a whole name
MOST_STEPS = 64  # nodes looked at from one word of the text
MOST_LOOKED_UP = 1_000  # unknown words of one text that are looked up as misspelt
_BETWEEN = frozenset(" \t\u00a0'’-‐–./&_+#()\"")


@dataclass(frozen=True, slots=True)
class _Step:
    """The words `text[…]` up to place `after` are read as the known word `token`, `cost` letters amiss."""

    token: int
    after: int
    cost: int


class Gazetteer:
    """A list of names, searchable. Where two values share a name the first one holds it.

    `fuzzy`: misspelt words count, and plurals ("cameras"); but not words of `ordinary` and the commonest English ones,
    which mean themselves.
    Raises ValueError for a name without a letter or digit, or with more than MOST_WORDS words. 50,000 names of three
    words take 67 MiB with `fuzzy` (`python -m benchmarks entities`). It cannot be pickled for another process.
    """

    def __init__(self, values: Iterable[SlotValue], fuzzy: bool = True, ordinary: Collection[str] = ()) -> None:
        self.values: list[SlotValue] = []
        self._tokens: dict[str, int] = {}
        self._tree: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._nodes = 1
        joined: list[tuple[str, int]] = []
        for place, value in enumerate(values):
            self.values.append(value)
            for name in (value.value, *value.synonyms):
                spoken = forms(name)
                if not 0 < len(spoken) <= MOST_WORDS:
                    raise ValueError(f"{name!r}: a name has a letter or digit, and at most {MOST_WORDS} words")
                self._add(spoken, place)
                if 1 < len(spoken) <= 3 and len(one := "".join(spoken)) >= 5 and one.isalpha():
                    joined.append((one, place))
        for one, place in joined:
            self._add((one,), place)
        self._ordinary, self._english = ordinary, ordinary_words() if fuzzy else frozenset[str]()
        self._near = NearWords(list(self._tokens)) if fuzzy else None

    def _add(self, spoken: Sequence[str], place: int) -> None:
        node = 0
        for form in spoken:
            edge = node << 32 | self._tokens.setdefault(form, len(self._tokens))
            node = self._tree.setdefault(edge, self._nodes)
            if node == self._nodes:
                self._nodes += 1
        self._ends.setdefault(node, place)

    def found(self, text: str, said: Sequence[Word]) -> list[Candidate]:
        """Where `text`, whose words are `said`, says a name. They may overlap."""
        steps = self._steps(text, said)
        candidates: list[Candidate] = []
        for first in range(len(said)):
            if steps[first]:
                self._walk(text, said, steps, first, candidates)
        return candidates

    def _walk(
        self, text: str, said: Sequence[Word], steps: list[list[_Step]], first: int, into: list[Candidate]
    ) -> None:
        best: dict[int, tuple[int, int]] = {}
        reached, looked = [(0, first, 0)], 0
        while reached and looked < MOST_STEPS:
            node, place, cost = reached.pop()
            for step in steps[place] if place < len(said) else ():
                looked += 1
                if (total := cost + step.cost) > MOST_EDITS or (place > first and not _adjoin(text, said, place)):
                    continue
                if (following := self._tree.get(node << 32 | step.token)) is None:
                    continue
                reached.append((following, step.after, total))
                named = self._ends.get(following)
                if named is not None and (step.after not in best or best[step.after][0] > total):
                    best[step.after] = (total, named)
        for after, (cost, place) in best.items():
            start, end = said[first].start, said[after - 1].end
            if bounded(text, start, end):
                value = self.values[place]
                score = 1 - cost / (end - start)
                into.append(Candidate(start, end, value.value, score, needs_cue=value.needs_cue))

    def _joined(self, text: str, said: Sequence[Word], place: int) -> int | None:
        """The known word that this one and the next are together: "head phones"."""
        if place + 1 == len(said) or min(len(one := said[place].form), len(two := said[place + 1].form)) < 2:
            return None
        token = self._tokens.get(one + two)
        return token if token is not None and len(one + two) >= 5 and _adjoin(text, said, place + 1) else None

    def _misspelt(self, form: str) -> list[tuple[int, int]]:
        """Known words, with their distances, that an unknown one may be: in the other number, or misspelt."""
        if self._near is None:
            return []
        other = (form[:-1] if form.endswith("s") else f"{form}s") if len(form) > 3 else ""
        if (token := self._tokens.get(other)) is not None:
            return [(token, 1)]
        return [] if form in self._english or form in self._ordinary else self._near.near(form)[:4]

    def _steps(self, text: str, said: Sequence[Word]) -> list[list[_Step]]:
        """For each word of the text, which known words it may be."""
        known, looked_up = self._tokens, 0
        seen: dict[str, list[tuple[int, int]]] = {}
        steps: list[list[_Step]] = []
        for place, word in enumerate(said):
            here: list[_Step] = []
            exact = known.get(word.form)
            if exact is not None:
                here.append(_Step(exact, place + 1, 0))
            if (both := self._joined(text, said, place)) is not None:
                here.append(_Step(both, place + 2, 0))
            if self._near is not None and exact is None:
                if word.form not in seen and looked_up < MOST_LOOKED_UP:
                    seen[word.form] = self._misspelt(word.form)
                    looked_up += 1
                here.extend(_Step(token, place + 1, cost) for token, cost in seen.get(word.form, ()))
            steps.append(here[::-1])
        return steps


def usable(name: str) -> bool:
    """Whether a list can hold it: a letter or digit, at most MOST_WORDS words and 200 characters."""
    return 0 < len(name) <= 200 and 0 < len(forms(name)) <= MOST_WORDS


def _adjoin(text: str, said: Sequence[Word], place: int) -> bool:
    """Whether the word at `place` can belong to one name with the word before it: at most three characters between
    them, and none that ends a sentence; a full stop may follow what looks like an abbreviation."""
    before, after = said[place - 1], said[place]
    between = text[before.end : after.start]
    if len(between) > 3 or not _BETWEEN.issuperset(between):
        return False
    return not (between.startswith(".") and len(between) > 1) or before.end - before.start <= 3
