"""What a text shows of its difficulty without a model: its length, numbers, kinds of words, options, symbols."""

import itertools
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKETS = 8192  # of hashed words and pairs of words
READ = 4000  # characters; what lies further back changes nothing but the length, and bounds the time
WIDE = (8, 12)  # letters from which a word is long, and very long

_TOKEN = re.compile(r"[a-z]+|\d[\d.,]*\d|\d")
_OPTION = re.compile(r"^[A-J][.)] ?(.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")

_WORDS = {
    "what": "what",
    "which": "which",
    "how": "how",
    "many": "many much",
    "why": "why explain because reason",
    "when": "when",
    "where": "where",
    "who": "who whom whose",
    "following": "following",
    "negation": "not except never none cannot no nor without incorrect false",
    "superlative": "least most best worst primarily likely",
    "truth": "true correct statements",
    "statement": "statement statements",
    "condition": "if suppose assume given let unless whether",
    "each": "each per every apiece",
    "fraction": "half twice third quarter double triple thirds quarters times",
    "comparison": "more less fewer greater than longer taller older younger larger smaller",
    "total": "total altogether sum remaining left remain difference",
    "time": "day days week weeks month months year years hour hours minute minutes",
    "money": "cost costs price dollars cents pay pays paid sold sells earn earns buys buy bought spent spend",
    "ratio": "percent percentage average mean median probability ratio rate",
    "calculation": "calculate compute find evaluate determine solve estimate",
    "mathematics": "function equation integer prime group ring field matrix vector graph polynomial theorem finite "
    "infinite order set",
    "science": "energy mass force velocity electron current voltage temperature pressure reaction atom molecule",
    "numeral": "one two three four five six seven eight nine ten twelve hundred thousand",
    "person": "he she his her him they their",
    "speaker": "i you your my me we us",
    "law": "court law defendant plaintiff statute contract property crime state",
    "argument": "argument theory according author passage philosopher moral wrong",
    "modal": "will would should could can may might must",
    "of": "of",
    "the": "the",
    "and": "and",
    "or": "or",
    "courtesy": "please hello hi thanks thank",
    "task": "write code program summarize translate list describe compare prove derive",
}
_CHARACTERS = {
    "digits": "0123456789",
    "capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "operators": "+=<>^*/|~",
    "brackets": "(){}[]",
    "commas": ",;:",
    "stops": ".",
    "questions": "?",
    "quotes": "\"'`",
    "dollars": "$",
    "percents": "%",
    "dashes": "-",
    "underscores": "_",
    "lines": "\n",
    "marks": "\\@#&!",
}
_PHRASES = ("of the above", "which of the following", "__", "statement 1", "how many", "how much", "```")
_SHARES = 5  # of the first kinds of characters their share counts too
_LENGTHS = (
    "log characters",
    "log tokens",
    "log words",
    "log numbers",
    "log different numbers",
    "log largest number",
    "decimals",
    "letters a word",
    "share of long words",
    "share of very long words",
    "letters of the longest word",
    "share of different tokens",
    "log sentences",
    "options",
    "log mean option",
    "log longest option",
    "log shortest option",
    "spread of options",
    "share of options with digits",
    "log question",
    "tokens a sentence",
    "log names",
    "share beyond ASCII",
)

NAMES = (
    *_LENGTHS,
    *(f"says {phrase!r}" for phrase in _PHRASES),
    *(f"log {kind}" for kind in _CHARACTERS),
    *(f"share of {kind}" for kind in list(_CHARACTERS)[:_SHARES]),
    *(f"log {kind} words" for kind in _WORDS),
)

_KINDS_OF = {
    word: [kind for kind, words in enumerate(_WORDS.values()) if word in words.split()]
    for word in " ".join(_WORDS.values()).split()
}
_CHARACTER_KINDS = np.array([[chr(code) in kind for kind in _CHARACTERS.values()] for code in range(128)], np.float32)


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """`rows` float32 (texts, len(NAMES)), finite for any text; counts are log(1 + count).

    `words`, one a text: the buckets of its words and neighbouring pairs, int64, and their weights, float32, length 1.
    """

    rows: NDArray[np.float32]
    words: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]

    def at(self, index: NDArray[np.int64]) -> "TextFeatures":
        """Those of `index`."""
        return TextFeatures(self.rows[index], [self.words[i] for i in index])


def features(texts: Sequence[str]) -> TextFeatures:
    """About 0.15 ms for a text of 500 characters."""
    both = [_features(text) for text in texts]
    return TextFeatures(np.stack([row for row, _ in both]), [words for _, words in both])


def _features(text: str) -> tuple[NDArray[np.float32], tuple[NDArray[np.int64], NDArray[np.float32]]]:
    read = text[:READ]
    lower = read.lower()
    ascii_bytes = np.frombuffer(read.encode("ascii", "ignore"), np.uint8)
    characters = np.bincount(ascii_bytes, minlength=128) @ _CHARACTER_KINDS
    tokens = _TOKEN.findall(lower)
    counts = [0] * len(_WORDS)
    for token in tokens:
        for kind in _KINDS_OF.get(token, ()):
            counts[kind] += 1
    row = np.concatenate(
        (
            np.array(_lengths(text, read, tokens) + [phrase in lower for phrase in _PHRASES], np.float32),
            np.log1p(characters, dtype=np.float32),
            (characters[:_SHARES] / max(len(read), 1)).astype(np.float32),
            np.log1p(counts, dtype=np.float32),
        )
    )
    return row, _hashed(tokens)


def _hashed(tokens: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Feature hashing (Weinberger et al., arXiv:0902.2206): the sign of a bucket's weight is hashed too."""
    numbered = ["0" if token[0].isdigit() else token for token in tokens]
    pairs = map(" ".join, itertools.pairwise(numbered))
    codes = np.array([zlib.crc32(word.encode()) for word in (*numbered, *pairs)], np.int64)
    weights = 1.0 - 2.0 * (codes // BUCKETS % 2)
    norm = math.sqrt(float((np.bincount(codes % BUCKETS, weights) ** 2).sum())) if len(codes) else 1.0
    return codes % BUCKETS, (weights / max(norm, 1e-6)).astype(np.float32)


def _lengths(text: str, read: str, tokens: list[str]) -> list[float]:
    numbers = [token for token in tokens if token[0].isdigit()]
    letters = [len(token) for token in tokens if not token[0].isdigit()]
    words, options = max(len(letters), 1), list(_OPTION.finditer(read))
    question = read[: options[0].start()] if options else read
    sentences = len(_SENTENCE_END.findall(question))
    return [
        math.log1p(len(text)),
        math.log1p(len(tokens)),
        math.log1p(len(letters)),
        math.log1p(len(numbers)),
        math.log1p(len(set(numbers))),
        math.log1p(max(map(_value, numbers), default=0)),
        sum("." in number for number in numbers),
        sum(letters) / words,
        sum(length >= WIDE[0] for length in letters) / words,
        sum(length >= WIDE[1] for length in letters) / words,
        max(letters, default=0),
        len(set(tokens)) / max(len(tokens), 1),
        math.log1p(sentences),
        *_options([option[1] for option in options]),
        math.log1p(len(question)),
        len(tokens) / max(sentences, 1),
        math.log1p(len(_NAME.findall(question))),
        1 - len(read.encode("ascii", "ignore")) / max(len(read), 1),
    ]


def _options(options: list[str]) -> list[float]:
    """How many there are, how long, how unlike in length, and how many of them hold digits."""
    if not options:
        return [0.0] * 6
    lengths = [len(option) for option in options]
    mean = sum(lengths) / len(lengths)
    spread = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths)) / (1 + mean)
    digits = sum(any(map(str.isdigit, option)) for option in options) / len(options)
    return [len(options), math.log1p(mean), math.log1p(max(lengths)), math.log1p(min(lengths)), spread, digits]


def _value(number: str) -> float:
    try:
        return float(number.replace(",", "")[:20])
    except ValueError:  # 1.2.3
        return 0.0
