"""Which words beside a slot's values tell that it is this slot."""

from collections import Counter
from collections.abc import Sequence

from deployments.entities.annotated import Annotated
from deployments.entities.cues import AFTER, BEFORE
from deployments.entities.words import words

MOST_CUES = 30
_LEAST = 2  # examples in which a cue stands beside the slot
_SHARE = 0.02  # of a slot's examples
_LIFT = 2.0  # times as often beside the slot's values as in texts without the slot

def learn_cues(examples: Sequence[Annotated]) -> dict[str, list[str]]:
    """Slot to its cues, the most telling first. A word counts if it stands beside the slot's values `_LIFT` times as
    often as anywhere in texts without the slot, or beside another slot's values."""
    beside: dict[str, Counter[str]] = {}
    within: dict[str, Counter[str]] = {}
    texts: Counter[str] = Counter()
    everywhere: Counter[str] = Counter()
    for example in examples:
        said = words(example.text)
        spans = (*example.spans, *example.placeholders)
        inside = {place for place, word in enumerate(said) if any(s.start <= word.start < s.end for s in spans)}
        whole = {word.form for place, word in enumerate(said) if place not in inside and word.form.isalpha()}
        everywhere.update(whole)
        for slot in {span.slot for span in spans}:
            texts[slot] += 1
            within.setdefault(slot, Counter()).update(whole)
            near: set[str] = set()
            for span in spans:
                if span.slot == slot:
                    first = sum(word.start < span.start for word in said)
                    after = sum(word.start < span.end for word in said)
                    places = {*range(max(0, first - BEFORE), first), *range(after, min(len(said), after + AFTER))}
                    near |= {said[place].form for place in places - inside}
            beside.setdefault(slot, Counter()).update(near & whole)
    return {slot: _telling(beside[slot], texts[slot], everywhere, within[slot], len(examples)) for slot in texts}


def _telling(
    beside: Counter[str], texts: int, everywhere: Counter[str], within: Counter[str], examples: int
) -> list[str]:
    others = max(1, examples - texts)
    lifts: dict[str, float] = {}
    for word, count in beside.items():
        share = count / texts
        elsewhere = (everywhere[word] - within[word] + 0.5) / (others + 1)
        if count >= _LEAST and share >= _SHARE and share / elsewhere >= _LIFT:
            lifts[word] = share * min(share / elsewhere, 20)
    return sorted(lifts, key=lambda word: (-lifts[word], word))[:MOST_CUES]
