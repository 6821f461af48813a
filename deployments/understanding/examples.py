"""What a model can be trained from, and what the names of intents say."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from domain.errors import InvalidExamples
from domain.understanding import Example

FEWEST_INTENTS = 2
FEWEST_EXAMPLES = 5  # of an intent
LONGEST = 32_000  # characters, as of a message
SHOWN = 80  # characters of a text that an error names


def check_examples(examples: Sequence[Example]) -> None:
    """Raises `InvalidExamples`, which names the first bad example or intent."""
    names: dict[str, str] = {}
    for number, example in enumerate(examples, 1):
        place = f"examples.{number - 1}"
        if not example.intent.strip():
            raise InvalidExamples(f"example {number} ({_shown(example.text)}) names no intent", f"{place}.intent")
        if not example.text.strip():
            raise InvalidExamples(f"example {number}, of intent {_shown(example.intent)}, has no text", f"{place}.text")
        if len(example.text) > LONGEST:
            raise InvalidExamples(
                f"example {number}, of intent {_shown(example.intent)}, has {len(example.text)} characters; "
                f"{LONGEST} are allowed: {_shown(example.text)}",
                f"{place}.text",
            )
        other = names.setdefault(normalised(example.text), example.intent)
        if other != example.intent:
            raise InvalidExamples(
                f"example {number} ({_shown(example.text)}) is given for two intents: "
                f"{_shown(other)} and {_shown(example.intent)}",
                place,
            )
    # the same text twice teaches once
    counts = Counter(names.values())
    if len(counts) < FEWEST_INTENTS:
        named = ", ".join(map(_shown, counts)) or "none"
        raise InvalidExamples(f"{FEWEST_INTENTS} intents or more are needed, and these examples name {named}")
    for intent, count in counts.items():
        if count < FEWEST_EXAMPLES:
            raise InvalidExamples(
                f"intent {_shown(intent)} has {count} different examples; {FEWEST_EXAMPLES} or more are needed"
            )


def normalised(text: str) -> str:
    """What makes two texts the same example: neither case, width of characters nor spaces count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def different(examples: Sequence[Example]) -> list[Example]:
    """Each text once, as it came first."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(normalised(example.text), example)
    return list(first.values())


def explained(labels: Sequence[str], descriptions: Mapping[str, str]) -> list[Example]:
    """Texts that say what an intent is: its name as words, and its description where there is one."""
    found = []
    for label in labels:
        words = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)).strip()
        texts = (words, descriptions.get(label, "").strip()[:LONGEST])
        found += [Example(text, label) for text in texts if text]
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
