"""The patterns that find facts in a sentence of a user, in English. Apostrophes are straight in it."""

import re
from dataclasses import dataclass

V = r"(?P<value>.+)"
_NAME = r"[A-Z][\w'-]+(?: (?:(?:van|von|de|der|la|del|bin) )*[A-Z][\w'-]+){0,3}"
NAMED = rf"(?P<value>{_NAME})"
_NOT_A_NAME = (
    r"(?!(?:A|Afraid|Allergic|Also|An|At|Back|Done|Fine|From|Glad|Going|Happy|Having|Here|In|Interested|Just|Looking|Not"
    r"|Now|On|So|Sorry|Still|Sure|The|Trying|Vegan|Vegetarian|Very)\b)"
)
_I = r"(?i:\b(?:I|we))"
_AM = r"(?i:\b(?:I'm|I am|we're|we are|I was))"
_HAVE = r"(?i:'ve| have)?(?i: just| already| recently| finally)?"
_JOBS = (
    "accountant|architect|artist|carpenter|chef|designer|developer|doctor|driver|electrician|engineer|farmer|lawyer|manager"
    "|nurse|photographer|pilot|retiree|scientist|student|teacher|writer"
)
_NO_POSSESSION = (
    r"(?!(?i:\w+ )?(?i:question|problem|issue|moment|look|idea|feeling|quick|few|bit|lot|complaint|request)s?\b)"
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """`many`: several values may hold at once, so that the value is part of the key. `commas`: it may have some."""

    key: str
    found: re.Pattern[str]
    many: bool = False
    commas: bool = False


def _one(key: str, found: str, commas: bool = False) -> Pattern:
    return Pattern(key, re.compile(found), False, commas)


def _many(key: str, found: str, commas: bool = False) -> Pattern:
    return Pattern(key, re.compile(found), True, commas)


PATTERNS = (
    _one("name", rf"(?i:\bmy (?:full |first )?name(?:'s| is)|\bcall me|\bI go by) {NAMED}"),
    _one("name", rf"(?i:\bthis is) {NAMED}(?= (?:from|speaking|calling|here|again)\b)"),
    _one(
        "name", rf"^(?i:(?:hi|hello|hey|good \w+)\b[ \w]*,? ){_AM} {_NOT_A_NAME}{NAMED}(?=[.,!]|$| (?:from|and|here)\b)"
    ),
    _one("name", rf"{_AM} {_NOT_A_NAME}(?P<value>[A-Z][\w'-]+ [A-Z][\w'-]+)(?=[.,!]|$| (?:from|and|here)\b)"),
    _one("lives in", rf"{_I} (?i:(?:now |currently )?(?:live|reside)) (?i:in|at|near) {V}", commas=True),
    _one("lives in", rf"{_AM} (?i:living|based) (?i:in|at|near) {V}", commas=True),
    _one("lives in", rf"{_I}{_HAVE} (?i:moved) (?i:to) {V}"),
    _one("comes from", rf"(?:{_AM}(?i: originally)?|{_I} (?i:come)) (?i:from) {V}"),
    _many(
        "order",
        r"(?i:\border(?: (?:number|no\.?|id|code))?)\s*(?i:is|was|:|=)?\s*#?\s*"
        r"(?P<value>(?=[\w-]*\d)[A-Z0-9][\w-]{3,})",
    ),
    _many("allergic to", rf"(?i:\ballergic to) {V}", commas=True),
    _many(
        "allergic to", r"(?i:\b(?:have|has|got|with) an? (?:\w+ )?)(?P<value>[\w ]{3,30}?)(?i: (?:allergy|intolerance))"
    ),
    _many("intolerant of", r"(?P<value>\b\w+)(?i:[- ]intolerant)\b"),
    _one(
        "diet",
        r"(?i:(?:\b(?:am|are|been|is|eat|keep|turned|went)|'m|'re)(?: an?)?(?: strict(?:ly)?)?) "
        r"(?P<value>(?i:vegan|vegetarian|pescatarian|halal|kosher|gluten[- ]free))\b",
    ),
    _many("cannot", rf"{_I} (?i:can't|cannot|can not|must not|mustn't|do not eat|don't eat|don't drink) {V}"),
    _one("size", r"(?i:\b(?:wear|take|need|am|I'm)(?: a)? size) (?P<value>[\w./]+)"),
    _many("prefers", rf"{_I}(?i:'d| would)?(?i: always| usually| generally)? (?i:prefer) {V}", commas=True),
    _many(
        "likes",
        rf"{_I}(?i: really| absolutely)? (?i:love|like|enjoy) (?!(?i:to know|to ask|that|it|this|your|if|how)\b){V}",
    ),
    _many(
        "dislikes",
        rf"{_I}(?i: really| absolutely)? (?i:hate|dislike|can't stand|don't like|do not like)"
        rf" (?!(?i:that|it|this|your|how|when)\b){V}",
    ),
    _one("works", rf"{_I} (?i:work) (?P<value>(?i:as|at|for|in) .+)"),
    _one("job", rf"(?i:\b(?:I'm|I am) an?) (?P<value>[\w ]{{0,25}}(?i:{_JOBS}))\b"),
    _one("age", r"(?i:\b(?:I'm|I am)) (?P<value>\d{1,3})(?i: years old|$|\.|,)"),
    _one("born", r"(?i:\bI was born) (?P<value>(?i:in|on) .+)"),
    _many(
        "has",
        rf"{_I}(?i:'ve got| have got| have| own) (?P<value>(?i:an?|two|three|four|five|six|\d+) {_NO_POSSESSION}.+)",
    ),
    _one("drives", rf"{_I} (?i:drive) {V}"),
    _one("speaks", rf"{_I}(?i: only)? (?i:speak) {V}"),
    _many("ordered", rf"{_I}{_HAVE} (?i:ordered|bought|purchased) {V}"),
    _many(
        "decided on",
        rf"{_I}{_HAVE}(?i:'ll| will)? (?i:decided (?:on|to|against)|settled on|chosen|chose|go with|take) {V}",
    ),
    _one("e-mail", r"(?P<value>\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"),
    _one(
        "phone",
        r"(?i:\b(?:phone|mobile|cell|telephone|number|call|reach|text)\b)[^+\d]{0,40}(?P<value>\+?\d[\d ()/-]{6,18}\d)",
    ),
    _many("note", rf"(?i:\b(?:remember|note|keep in mind|bear in mind|don't forget)(?: that)?,?:?) {V}", commas=True),
)
MINE = (
    re.compile(
        r"\b(?:my|our) (?P<kind>[a-z][\w'-]*(?: [\w'-]+){0,4}?)(?:(?:'s)? (?:is|are|was|will be|should be)|:)"
        r" (?P<value>.+)",
        re.IGNORECASE,
    ),
    re.compile(rf"\b[Mm]y (?P<kind>[a-z]+) {NAMED}"),
)
"""“My … is …”, whatever it is, and “my wife Maria”."""

NOT_TOLD = re.compile(
    r"^(?:not|no|nothing|that|this|it|what|how|why|whether|if|about|because|wrong|late|missing|broken)\b", re.IGNORECASE
)
"""How a value begins that says nothing."""

NOT_A_KIND = frozenset(
    (
        *("answer", "bad", "concern", "fault", "full name", "guess", "hope", "idea", "issue", "message", "mistake"),
        *("name", "opinion", "point", "problem", "question", "turn", "understanding"),
    )
)
"""What “my … is …” tells nothing of, or what another pattern tells."""

CLAUSE = re.compile(
    r"\s+(?:and (?=i\b|i'm\b|my\b|we\b|please\b|it\b|that\b)|but\b|so (?=i\b|please\b|can\b|what\b)|because\b"
    r"|by the way\b|though\b|if you\b|in case\b|thanks\b|please\b)|\s[-–—]\s|;|:\s",
    re.IGNORECASE,
)
"""Where a value ends before its sentence does."""
