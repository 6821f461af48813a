"""Slot definitions from annotated examples: as data, so that a tenant can read and correct what was learned."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.entities.annotated import Annotated, Span
from deployments.entities.cue_learning import learn_cues
from deployments.entities.extractor import Extractor
from deployments.entities.gazetteer import usable
from deployments.entities.numbers import number
from deployments.entities.shapes import pattern
from deployments.entities.words import fold, forms, words
from domain.errors import InvalidSlot
from domain.slots import MOST_VALUES, Kind, SlotDefinition, SlotValue

_GUESSED: tuple[Kind, ...] = ("email", "url", "percentage", "price", "time", "date", "colour")
_KINDS: tuple[Kind, ...] = (*_GUESSED, "phone", "order_number", "quantity", "number", "size")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOSTLY = 0.9  # of a slot's examples that a kind must find whole
_TRUSTED = 0.9  # of the places where a name stands that are its slot; below, it needs a cue
_ORDINARY = 3  # times a word stands outside all values


@dataclass(frozen=True, slots=True)
class Learned:
    """`slots`: what to define; `ordinary`: words of the texts that no name is looked for in, for the Extractor."""

    slots: list[SlotDefinition]
    ordinary: frozenset[str]


@dataclass(slots=True)
class _Seen:
    """What examples say of one slot: its texts and how they are to be written."""

    texts: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)


def learn(examples: Iterable[Annotated], lists: Mapping[str, Sequence[str]] | None = None) -> Learned:
    """Of each slot its kind (a built-in one that finds the values; else a pattern of their shapes, for codes; else a
    list), the words that stand beside it, and which names need one of these. `lists`: more names for slots.

    Raises InvalidSlot for a slot of which places are known but no value, unless it is named like a built-in kind;
    for a name that no slot can have, and for values that no list can hold.
    """
    given = list(examples)
    seen: dict[str, _Seen] = {}
    for example in given:
        for span in example.placeholders:
            seen.setdefault(span.slot, _Seen())
        for span in example.spans:
            _note(seen.setdefault(span.slot, _Seen()), example.text, span)
    for slot, names in (lists or {}).items():
        for name in names:
            seen.setdefault(slot, _Seen()).values.setdefault(fold(name), Counter())[name] += 1
    cues = learn_cues(given)
    slots = [_defined(slot, what, cues.get(slot, [])) for slot, what in seen.items()]
    ordinary = _ordinary(given)
    return Learned(_guarded(slots, given, ordinary), ordinary)


def _note(seen: _Seen, text: str, span: Span) -> None:
    said = text[span.start : span.end]
    seen.texts[said] += 1
    seen.values.setdefault(fold(said), Counter())[span.value or said] += 1


def _defined(slot: str, seen: _Seen, cues: list[str]) -> SlotDefinition:
    texts = list(seen.texts)
    if not _NAME.fullmatch(slot):
        raise InvalidSlot(slot, "a name begins with a letter, and has letters, digits and _ alone, at most 64")
    if (kind := _kind(slot, texts)) is not None:
        return SlotDefinition(name=slot, kind=kind, cues=cues, fuzzy=kind == "colour")
    if not seen.values:
        raise InvalidSlot(slot, "examples show where it stands and never a value: give one, or a list of them")
    codes = [text for text in texts if any(map(str.isdecimal, text)) and not any(map(str.isspace, text))]
    if texts and len(codes) >= _MOSTLY * len(texts) and (shape := pattern(codes)) and len(shape) <= 500:
        return SlotDefinition(name=slot, kind="pattern", pattern=shape, cues=cues)
    names: dict[str, set[str]] = {}
    for form, values in seen.values.items():
        names.setdefault(max(values, key=lambda v: (values[v], v)), set()).add(form)
    listed = [
        SlotValue(value=name, synonyms=sorted(s for s in said if usable(s) and forms(s) != forms(name))[:50])
        for name, said in names.items()
        if usable(name)
    ]
    if not listed:
        raise InvalidSlot(slot, "none of its values has a letter or digit and at most 200 characters")
    return SlotDefinition(name=slot, kind="list", values=listed[:MOST_VALUES], fuzzy=True, cues=cues)


def _kind(slot: str, texts: Sequence[str]) -> Kind | None:
    """The built-in kind that finds the values, or is named like the slot where none is known."""
    if slot in _KINDS and (not texts or _finds(slot, texts)):
        return slot
    if not texts:
        return None
    counted = [number(text) is not None for text in texts]
    if all(counted) and (any(text.isalpha() for text in texts) or max(map(len, texts)) <= 2):
        return "number"
    return next((kind for kind in _GUESSED if _finds(kind, texts)), None)


def _finds(kind: Kind, texts: Sequence[str]) -> bool:
    extractor = Extractor([SlotDefinition(name="s", kind=kind)])
    whole = [[(e.start, e.end) for e in extractor.extract(text)] == [(0, len(text))] for text in texts]
    return sum(whole) >= _MOSTLY * len(texts)


def _guarded(
    slots: list[SlotDefinition], examples: Sequence[Annotated], ordinary: frozenset[str]
) -> list[SlotDefinition]:
    """Those with `needs_cue` where the examples show a name, or a whole slot, that often means something else."""
    extractor = Extractor(slots, ordinary=ordinary)
    right: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for example in examples:
        marked = {(span.start, span.end): span.slot for span in (*example.spans, *example.placeholders)}
        for entity in extractor.extract(example.text):
            key = (entity.slot, str(entity.value))
            (right if marked.get((entity.start, entity.end)) == entity.slot else wrong)[key] += 1
    guarded = []
    for slot in slots:
        if not slot.cues:
            guarded.append(slot)
        elif slot.kind == "list":
            values = [
                value.model_copy(
                    update={"needs_cue": _doubtful(right[slot.name, value.value], wrong[slot.name, value.value])}
                )
                for value in slot.values
            ]
            guarded.append(slot.model_copy(update={"values": values}))
        else:
            good = sum(count for (name, _), count in right.items() if name == slot.name)
            bad = sum(count for (name, _), count in wrong.items() if name == slot.name)
            guarded.append(slot.model_copy(update={"needs_cue": _doubtful(good, bad)}))
    return guarded


def _doubtful(right: int, wrong: int) -> bool:
    return wrong > 0 and right < _TRUSTED * (right + wrong)


def _ordinary(examples: Sequence[Annotated]) -> frozenset[str]:
    outside: Counter[str] = Counter()
    inside: set[str] = set()
    for example in examples:
        spans = (*example.spans, *example.placeholders)
        for word in words(example.text):
            if any(span.start <= word.start < span.end for span in spans):
                inside.add(word.form)
            else:
                outside[word.form] += 1
    return frozenset(word for word, count in outside.items() if count >= _ORDINARY and word not in inside)
