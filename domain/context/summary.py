"""The rolling summary of what a prompt no longer tells word for word, and the facts beside it.

A summary grows at its end, a section for each block of history that is dropped, so that its beginning stays the same
from block to block. Only when it has outgrown its budget its sections are made one, which keeps the best of them. Each
version of it can be told: the one for a history that begins at a turn holds what was known before that turn.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from domain.context.facts import Fact, facts_of, latest, merged
from domain.context.remembered import Remembered
from domain.context.sentences import sentences, worth
from domain.context.tokens import estimate_tokens

EXTRACTIVE = "extractive"
LEAST, MOST = 128, 2048  # tokens of a whole summary
SECTION = 1 / 8  # of a summary's tokens: what is extracted of one block
_WORD = re.compile(r"\w{2,}|\d")
_DIGITS = re.compile(r"\d+")
_SPEAKERS = {"user": "User", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True, slots=True)
class Section:
    """What was said in the turns `since` to `until`, the latter's messages up to `seq`. `made_by`: a model's id, or
    `extractive`."""

    since: int
    until: int
    seq: int
    text: str
    made_by: str = EXTRACTIVE


@dataclass(frozen=True, slots=True)
class Summary:
    """Sections in the order in which they were made, and facts in the order in which they were told."""

    sections: tuple[Section, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def until(self) -> int:
        """The last turn that it covers, 0 for none."""
        return max((section.until for section in self.sections), default=0)

    @property
    def seq(self) -> int:
        return max((section.seq for section in self.sections), default=0)

    @property
    def made_by(self) -> str:
        """The model that made the last section by a model, if there is any."""
        return next((one.made_by for one in reversed(self.sections) if one.made_by != EXTRACTIVE), EXTRACTIVE)

    def told(self, start: int) -> list[Section]:
        """The sections for a history that begins with the turn `start`."""
        known = [section for section in self.sections if section.until < start]
        return [
            one
            for place, one in enumerate(known)
            if not any(other.since <= one.since and other.until >= one.until for other in known[place + 1 :])
        ]

    def facts_before(self, start: int) -> list[Fact]:
        return latest(self.facts, start)

    def text(self, start: int) -> str:
        return "\n".join(section.text for section in self.told(start) if section.text)

    def extended(
        self, messages: Iterable[Remembered], limit: int, written: str | None = None, made_by: str = EXTRACTIVE
    ) -> "Summary":
        """With `messages` of turns behind `until` taken in: `written` as their section, else one that is extracted.

        `limit`: tokens of the whole, an estimate.
        """
        new = sorted((one for one in messages if one.order > self.until), key=lambda one: (one.order, one.seq))
        if not new:
            return self
        limit = min(max(limit, LEAST), MOST)
        text = extract(new, int(limit * SECTION)) if written is None else written
        since, until, seq = new[0].order, new[-1].order, max(one.seq for one in new)
        section = Section(since, until, seq, cut(text, limit // 2), made_by)
        grown = replace(self, sections=(*self.sections, section), facts=merged(self.facts, facts_of(new)))
        told = grown.told(until + 1)
        if sum(estimate_tokens(one.text) for one in told) > limit:
            whole = Section(min(one.since for one in told), until, seq, _best(told, limit // 2), grown.made_by)
            grown = replace(grown, sections=(*grown.sections, whole))
        return grown

    def since(self, start: int) -> "Summary":
        """Without what no history that begins with the turn `start` or a later one needs."""
        told = self.told(start)
        sections = tuple(one for one in self.sections if one.until >= start or one in told)
        facts = (*self.facts_before(start), *(fact for fact in self.facts if fact.order >= start))
        return Summary(sections, facts)


def extract(messages: Sequence[Remembered], limit: int) -> str:
    """The sentences of `messages` that tell most, in their order, a line each, in at most `limit` tokens."""
    lines: dict[str, tuple[float, int, str]] = {}
    for message in messages:
        by_user = message.role == "user"
        for place, sentence in enumerate(sentences(message.content)):
            opens = place == 0 and not by_user and len(sentence) > 30  # what the reply was about
            value = worth(sentence, by_user) or (0.05 if opens else 0.0)
            if value > 0.0:
                said = f"- {_SPEAKERS[message.role]}: {sentence}"
                lines.pop(said.casefold(), None)  # told again: it has its later place
                lines[said.casefold()] = (value, len(lines), said)
    return _chosen([(value, said) for value, _, said in lines.values()], limit)


def cut(text: str, limit: int) -> str:
    """`text` in at most `limit` tokens, an estimate."""
    return text.encode()[: 4 * limit].decode(errors="ignore")


def _best(told: Sequence[Section], limit: int) -> str:
    lines = [one for section in told for one in section.text.splitlines() if one.strip()]
    return _chosen([(_value(one), one) for one in lines], limit)


def _value(said: str) -> float:
    """What a line of a section is worth. A model's lines count as told by the user: it was asked for what matters."""
    _, speaker, sentence = said.partition(": ") if said.startswith(("- User: ", "- Assistant: ")) else ("", "", said)
    return worth(sentence, not said.startswith("- Assistant: ")) if speaker else 1.5 + worth(said, True) / 2


def _chosen(lines: Sequence[tuple[float, str]], limit: int) -> str:
    """The lines of the highest value in at most `limit` tokens, in their order.

    A line counts for more the rarer its words are among the lines (K. Spärck Jones, "A statistical interpretation of
    term specificity", 1972): of many that say much the same, few stay. Numbers count as one word.
    """
    words = [set(_WORD.findall(_DIGITS.sub("0", said.casefold()))) for _, said in lines]
    common = Counter(word for one in words for word in one)
    values = [
        value * (0.5 + sum(1 / common[word] for word in one) / max(len(one), 1))
        for (value, _), one in zip(lines, words, strict=True)
    ]
    sizes = [estimate_tokens(said) + 1 for _, said in lines]
    kept: list[int] = []
    for place in sorted(range(len(lines)), key=lambda place: (-values[place], sizes[place], -place)):
        if sizes[place] <= limit:
            limit -= sizes[place]
            kept.append(place)
    return "\n".join(lines[place][1] for place in sorted(kept))
