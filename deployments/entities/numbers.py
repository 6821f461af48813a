"""Numbers, quantities, percentages and prices, in digits and in English words."""

from typing import Any

from deployments.entities.candidates import Candidate
from deployments.entities.regular import built_in, spans

MOST_CHARACTERS = 100
_UNITS_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_UNITS = _UNITS_TEXT.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS: dict[str, int] = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * (place + 2) for place, word in enumerate(_TENS)
}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_COUNTED = {"a pair": 2, "a couple": 2, "a dozen": 12, "half a dozen": 6, "dozen": 12}
_SPOKEN = rf"(?:{'|'.join([*_TENS, *reversed(_UNITS)])})"
SPOKEN = rf"(?:{_SPOKEN}(?:(?:\s+|-)(?:and\s+)?(?:{_SPOKEN}|hundred|thousand|million)){{0,7}})"
DIGITS = r"(?:\d{1,3}(?:[,' ]\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d+(?:[.,]\d+)?)"

_NUMBER = built_in(rf"[-−+]?{DIGITS}|{SPOKEN}")
_QUANTITY = built_in(
    rf"(?:x\s?)?(\d{{1,3}}(?:[,' ]\d{{3}})+|\d{{1,6}}|half a dozen|a dozen|dozen|a pair|a couple|{SPOKEN})"
)
_TIMES = built_in(r"(\d{1,6})\s?[x×]|[x×]\s?(\d{1,6})")
_PERCENTAGE = built_in(rf"[-−+]?{DIGITS}\s?(?:%|percent|per cent|pct|percentage points)|{SPOKEN}\s(?:percent|per cent)")
_NOT_ONE = ("this ", "that ", "the ", "which ", "another ", "any ", "every ", "each ", "no ")

_CURRENCIES = {
    "USD": r"us dollars?|usd|us\$|\$|dollars?|bucks?",
    "EUR": r"€|euros?|eur",
    "GBP": r"£|gbp|pounds?(?: sterling)?|quid",
    "JPY": r"jpy|yen|¥",
    "CNY": r"cny|rmb|yuan",
    "INR": r"₹|inr|rupees?|rs\.?",
    "CHF": r"chf|swiss francs?|francs?",
    "CAD": r"ca\$|c\$|cad|canadian dollars?",
    "AUD": r"au\$|a\$|aud|australian dollars?",
    "MXN": r"mx\$|mxn|pesos?",
    "BRL": r"r\$|brl|reais",
    "SEK": r"sek|kronor",
    "PLN": r"zł|pln|zloty",
    "TRY": r"₺|lira",
    "KRW": r"₩|krw",
}
_MONEY = rf"(?:{'|'.join(_CURRENCIES.values())})"
_PRICE = built_in(rf"{_MONEY}\s?{DIGITS}[km]?|(?:{DIGITS}[km]?|{SPOKEN})\s?-?{_MONEY}|{DIGITS}\s?(?:cents?|pence)")
_EITHER = built_in(_MONEY)
_IN_WORDS = built_in(rf"({SPOKEN})\s?-?({_MONEY})")
_EACH = {code: built_in(pattern) for code, pattern in _CURRENCIES.items()}
_PLAIN = built_in(DIGITS)


def number(text: str) -> int | float | None:
    """The number that a text is, in digits ("1,299.00", "1.299,00", "-4") or words ("twenty-five"); None if neither, or
    over MOST_CHARACTERS."""
    if len(text) > MOST_CHARACTERS:
        return None
    text = text.strip().lower().replace("−", "-")
    if text and text.lstrip("+-")[:1].isdigit():
        return _digits(text)
    return _spoken(text)


def _digits(text: str) -> int | float | None:
    plain = text.replace(" ", "").replace("'", "")
    comma, point = plain.rfind(","), plain.rfind(".")
    if comma > point:  # a decimal comma, unless what follows are thousands
        thousands = len(plain) - comma - 1 == 3 and (point < 0 or plain.count(",") > 1)
        plain = plain.replace(",", "") if thousands else plain.replace(".", "").replace(",", ".")
    else:
        plain = plain.replace(",", "")
        if plain.count(".") > 1:
            plain = plain.replace(".", "")
    try:
        value = float(plain)
    except ValueError:
        return None
    if len(plain) > 15 or value != int(value):
        return int(plain) if plain.lstrip("+-").isdigit() else value
    return int(value)


def _spoken(text: str) -> int | None:
    total, part, said = 0, 0, False
    for word in text.replace("-", " ").split():
        if word in _WORDS:
            part, said = part + _WORDS[word], True
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
        elif word != "and":
            return _COUNTED.get(text)
    return total + part if said else None


def numbers(text: str) -> list[Candidate]:
    """Any number; a lone "one" only where it counts something."""
    return [
        Candidate(start, end, value, 0.8)
        for start, end in spans(_NUMBER, text)
        if (value := number(text[start:end])) is not None and not _pronoun(text, start, end)
    ]


def quantities(text: str) -> list[Candidate]:
    """How many of something: a whole number, "3x", "x3", "a dozen"."""
    candidates = []
    for start, end in [*spans(_QUANTITY, text), *_multiples(text)]:
        value = number(text[start:end])
        if value is not None and value == int(value) and not _pronoun(text, start, end):
            candidates.append(Candidate(start, end, int(value), 0.8))
    return candidates


def _multiples(text: str) -> list[tuple[int, int]]:
    return [match.span(1 if match.group(1) else 2) for match in _TIMES.finditer(text)]


def _pronoun(text: str, start: int, end: int) -> bool:
    """Whether "one" stands for a thing: "that one"."""
    return text[start:end].lower() == "one" and text[max(0, start - 8) : start].lower().endswith(_NOT_ONE)


def percentages(text: str) -> list[Candidate]:
    """The number before "%" or "percent"."""
    candidates = []
    for start, end in spans(_PERCENTAGE, text):
        said = text[start:end].lower().rstrip("% ")
        for unit in ("percentage points", "percent", "per cent", "pct"):
            said = said.removesuffix(unit).rstrip()
        if (value := number(said)) is not None:
            candidates.append(Candidate(start, end, value, 0.95))
    return candidates


def prices(text: str) -> list[Candidate]:
    """`{"amount": number, "currency": ISO 4217}`; "$" is the United States' dollar."""
    return [
        Candidate(start, end, value, 0.95)
        for start, end in spans(_PRICE, text)
        if (value := _price(text[start:end])) is not None
    ]


def _price(said: str) -> dict[str, Any] | None:
    low = said.lower()
    if low.endswith(("cent", "cents", "pence")):
        hundredths = number(low.rstrip("abcdefghijklmnopqrstuvwxyz "))
        code = "GBP" if low.endswith("pence") else "USD"
        return None if hundredths is None else {"amount": hundredths / 100, "currency": code}
    amount: int | float | None
    digits = _PLAIN.search(low)
    if digits is None:
        if (words := _IN_WORDS.fullmatch(low)) is None:
            return None
        amount, unit = number(words.group(1)), words.group(2)
    else:
        amount = number(digits.group())
        unit = (low[: digits.start()] + low[digits.end() :]).strip(" -")
        if amount is not None and digits.end() < len(low) and unit[:1] in ("k", "m") and not _EITHER.fullmatch(unit):
            amount, unit = amount * (1_000 if unit[0] == "k" else 1_000_000), unit[1:].strip(" -")
        elif unit[-1:] in ("k", "m") and not _EITHER.fullmatch(unit):
            amount, unit = (amount or 0) * (1_000 if unit[-1] == "k" else 1_000_000), unit[:-1].strip(" -")
    currency = next((code for code, pattern in _EACH.items() if pattern.fullmatch(unit)), None)
    return None if amount is None or currency is None else {"amount": amount, "currency": currency}
