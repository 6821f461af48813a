"""Which words beside a slot's values tell that it is this slot."""

from collections import Counter
from collections.abc import Mapping, Sequence

from deployments.entities.annotated import Annotated
from deployments.entities.cues import AFTER, BEFORE
from deployments.entities.words import Word, words

MOST_CUES = 30
_LEAST = 2  # examples in which a cue stands beside the slot
_SHARE = 0.02  # of a slot's examples
_LIFT = 2.0  # times as often beside the slot's values as in texts without the slot
_CLOSEST = 0.5  # of how close it stands to the slot that it stands closest to


def learn_cues(examples: Sequence[Annotated]) -> dict[str, list[str]]:
    """Slot to its cues, the most telling first. A word counts if it stands beside the slot's values `_LIFT` times as
    often as anywhere in texts without the slot, and no other slot's values are much closer to it."""
    beside: dict[str, Counter[str]] = {}
    close: dict[str, dict[str, float]] = {}
    within: dict[str, Counter[str]] = {}
    texts: Counter[str] = Counter()
    everywhere: Counter[str] = Counter()
    for example in examples:
        said = words(example.text)
        spans = (*example.spans, *example.placeholders)
        outside = {
            place: word.form
            for place, word in enumerate(said)
            if word.form.isalpha() and len(word.form) <= 64 and not any(s.start <= word.start < s.end for s in spans)
        }
        everywhere.update(set(outside.values()))
        for slot in {span.slot for span in spans}:
            near: dict[str, float] = {}
            for span in spans:
                if span.slot == slot:
                    _see(near, said, outside, span.start, span.end)
            texts[slot] += 1
            beside.setdefault(slot, Counter()).update(near.keys())
            within.setdefault(slot, Counter()).update(set(outside.values()))
            sums = close.setdefault(slot, {})
            for form, closeness in near.items():
                sums[form] = sums.get(form, 0.0) + closeness
    for slot, sums in close.items():
        close[slot] = {form: closeness / texts[slot] for form, closeness in sums.items()}
    return {
        slot: _telling(slot, beside[slot], texts[slot], everywhere - within[slot], len(examples), close)
        for slot in texts
    }


def _see(near: dict[str, float], said: Sequence[Word], outside: Mapping[int, str], start: int, end: int) -> None:
    """Note the words beside `text[start:end]`: how close, 1 for the word right before it."""
    first = sum(word.start < start for word in said)
    after = sum(word.start < end for word in said)
    for place in range(max(0, first - BEFORE), min(len(said), after + AFTER)):
        if (form := outside.get(place)) is not None:
            closeness = 1 / (first - place) if place < first else 1 / (place - after + 2)
            near[form] = max(near.get(form, 0.0), closeness)


def _telling(
    slot: str,
    beside: Counter[str],
    texts: int,
    elsewhere: Counter[str],
    examples: int,
    close: Mapping[str, Mapping[str, float]],
) -> list[str]:
    others = max(1, examples - texts)
    weights: dict[str, float] = {}
    for word, count in beside.items():
        share, usual = count / texts, (elsewhere[word] + 0.5) / (others + 1)
        closest = max(own.get(word, 0.0) for own in close.values())
        if count < _LEAST or share < _SHARE or share / usual < _LIFT or close[slot][word] <= _CLOSEST * closest:
            continue
        weights[word] = share * min(share / usual, 20)
    return sorted(weights, key=lambda word: (-weights[word], word))[:MOST_CUES]
