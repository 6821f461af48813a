"""Sentences of a message, and how much each tells about its user: the ground of facts and of the extractive summary."""

import re
from collections.abc import Iterator

LONGEST = 400  # characters of a sentence that is looked at; longer ones are cut
_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=\S)|\n+")
_ABBREVIATED = re.compile(r"\b(?:no|nr|mr|mrs|ms|dr|st|e\.g|i\.e|approx|vs|etc)\.$", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_OWN = frozenset(("i", "i'm", "i've", "i'd", "i'll", "my", "mine", "me", "myself", "we", "we're", "our", "ours", "us"))
_TELLING = frozenset(
    (
        *(
            "prefer",
            "favourite",
            "favorite",
            "allergic",
            "allergy",
            "intolerant",
            "vegan",
            "vegetarian",
            "love",
            "hate",
        ),
        *(
            "need",
            "always",
            "never",
            "only",
            "must",
            "cannot",
            "can't",
            "don't",
            "instead",
            "important",
            "remember",
            "note",
        ),
        *("decided", "decide", "agreed", "choose", "chose", "chosen", "changed", "ordered", "bought", "booked", "paid"),
        *(
            "refund",
            "refunded",
            "return",
            "returned",
            "cancel",
            "cancelled",
            "delivery",
            "arrive",
            "arrives",
            "appointment",
        ),
        *(
            "deadline",
            "budget",
            "live",
            "moved",
            "work",
            "married",
            "born",
            "size",
            "address",
            "birthday",
            "anniversary",
        ),
        *("daughter", "son", "wife", "husband", "partner", "doctor", "called"),
    )
)
_IDENTIFIER = re.compile(r"\d[\w-]{3}|[A-Za-z-]\d|@\S+\.")
_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<=[\w,] )[A-Z][\w'-]+")
_DONE = re.compile(
    r"\b(?:i have|i've|we have|we've|will|has been|have been|is booked|refunded|shipped|confirmed|scheduled|cancelled)"
    r"\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"^\W*(?:hi|hello|hey|thanks|thank you|ok|okay|great|good|sure|yes|no|please|perfect|bye|alright|got it|cool)\b"
    r"[\w\s,']{0,24}\W*$",
    re.IGNORECASE,
)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, without line breaks in them."""
    held = ""
    for part in _END.split(text):
        held = f"{held} {part.strip()}".strip()
        if held and (len(held) > LONGEST or not _ABBREVIATED.search(held[-12:])):
            yield held[:LONGEST]
            held = ""
    if held:
        yield held[:LONGEST]


def worth(sentence: str, by_user: bool) -> float:
    """What a sentence is worth keeping, 0 for nothing: what users tell about themselves and what they order comes
    first, what was promised to them next, and questions last."""
    if len(sentence) < 8 or _SMALL_TALK.match(sentence):
        return 0.0
    figures = 0.0
    if "@" in sentence or _NUMBER.search(sentence):
        figures = 1.5 if _IDENTIFIER.search(sentence) else 0.75
    named = min(len(_NAME.findall(sentence)), 3) * 0.5
    if not by_user:
        return 0.5 * (1.0 + figures + named) if (figures or named) and _DONE.search(sentence) else 0.0
    words = set(_WORD.findall(sentence.lower()))
    told = figures + named + min(len(words & _TELLING), 3) * 0.75
    if words & _OWN:
        told += 1.5
    return max(told - 2.0, 0.1) if sentence.endswith("?") else told
