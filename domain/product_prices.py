"""Money in texts: what is said to cost how much, and between which bounds a price is asked for."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

_CODES = {
    "$": "USD",
    "us$": "USD",
    "usd": "USD",
    "dollar": "USD",
    "dollars": "USD",
    "bucks": "USD",
    "€": "EUR",
    "eur": "EUR",
    "euro": "EUR",
    "euros": "EUR",
    "£": "GBP",
    "gbp": "GBP",
    "quid": "GBP",
    "chf": "CHF",
    "jpy": "JPY",
    "yen": "JPY",
    "¥": "JPY",
    "cad": "CAD",
    "aud": "AUD",
    "inr": "INR",
    "₹": "INR",
    "sek": "SEK",
    "nok": "NOK",
    "dkk": "DKK",
    "pln": "PLN",
    "zł": "PLN",
}
_UNIT = "|".join(sorted(map(re.escape, _CODES), key=len, reverse=True))
_NUMBER = r"(?:\d{1,3}(?:[,.'\u202f ]\d{3})+(?:[.,]\d{1,2})?|\d+(?:[.,]\d{1,2})?)(?!\d)"
_MONEY = rf"(?:(?:{_UNIT})\s?{_NUMBER}|(?<![\w.,]){_NUMBER}\s?(?:{_UNIT})(?!\w))"
_CLAIMED = re.compile(_MONEY, re.IGNORECASE)
_OF_SOMETHING = (
    r"inch|inches|gb|tb|mb|mah|ml|cm|mm|kg|lbs?|ft|l|w|k|mp|x|h|hours?|years?|people|persons?|pieces?|liters?|litres?|cups?"
    r"|watts?|items?|things?|percent"
)
_SAID = rf"(?:{_MONEY}|(?<![\w.,-]){_NUMBER})(?![\w%\"-]|[.,]\d|\s?(?:{_OF_SOMETHING})\b)"
_FROM = rf"{_MONEY}|(?<![\w.,-]){_NUMBER}"
_BETWEEN = re.compile(rf"(?:\bbetween\s+|\bfrom\s+)?({_FROM})\s*(?:\band\b|\bto\b|-|–)\s*({_SAID})", re.IGNORECASE)
_BELOW = re.compile(
    r"\b(?P<strict>under|below|less than|cheaper than|lower than|beneath)\s+"
    rf"(?P<a>{_SAID})|\b(?:up to|at most|max(?:imum)?(?: of| price)?|no more than|not more than|not over|within|"
    rf"budget(?: of| is|:)?|"
    rf"for|can spend|spend)\s+(?:about\s+|around\s+|only\s+|a\s+)?(?P<b>{_SAID})|(?P<c>{_SAID})\s+(?:or less|"
    rf"or under|or below|max(?:imum)?|at most|tops)\b",
    re.IGNORECASE,
)
_ABOVE = re.compile(
    rf"\b(?P<strict>over|above|more than|dearer than|higher than)\s+(?P<a>{_SAID})|\b(?:at least|no less than|"
    rf"starting at|from|min(?:imum)?(?: of)?)\s+"
    rf"(?P<b>{_SAID})|(?P<c>{_SAID})\s+(?:or more|or above|or over|and up|upwards)\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(rf"\b(?:about|around|roughly|approximately|approx\.?|circa|near)\s+({_SAID})", re.IGNORECASE)
_CENT = Decimal("0.01")
_NEEDS_UNIT = re.compile(r"(?:for|from|within|spend|between)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Money:
    """`text[start:end]` says an amount, in a currency (ISO 4217) where it names one."""

    amount: Decimal
    currency: str | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Prices asked for, both included, and the text without the words that said so."""

    least: Decimal | None
    most: Decimal | None
    currency: str | None
    rest: str


def amounts(text: str) -> list[Money]:
    """Every amount that stands with its currency, in order."""
    found = []
    for match in _CLAIMED.finditer(text):
        amount, currency = _read(match.group())
        if amount is not None:
            found.append(Money(amount, currency, *match.span()))
    return found


def bounds(text: str) -> Bounds:
    """ "under 50 dollars", "between 20 and 40 €", "at least $5", "about 30 euros" (15 % up and down)."""
    least = most = None
    currency: str | None = None
    if (match := _BETWEEN.search(text)) and _is_money(match.group()):
        (least, one), (most, other) = _read(match.group(1)), _read(match.group(2))
        if least is not None and most is not None and least <= most:
            return Bounds(least, most, other or one, _without(text, match))
        least = most = None
    if (match := _BELOW.search(text)) and _is_money(match.group()):
        most, currency = _read(match["a"] or match["b"] or match["c"])
        most = most - _CENT if most and match["strict"] else most
        text = _without(text, match)
    if (match := _ABOVE.search(text)) and _is_money(match.group()):
        least, other = _read(match["a"] or match["b"] or match["c"])
        least = least + _CENT if least is not None and match["strict"] else least
        currency, text = currency or other, _without(text, match)
    if least is None and most is None and (match := _ABOUT.search(text)):
        amount, currency = _read(match.group(1))
        if amount is not None:
            least, most = (amount * Decimal("0.85")).quantize(_CENT), (amount * Decimal("1.15")).quantize(_CENT)
            text = _without(text, match)
    return Bounds(least, most, currency, text)


def told(amount: Decimal, currency: str | None) -> str:
    """As answers write it: "46.66 USD"."""
    exact = amount.quantize(_CENT) if amount == amount.quantize(_CENT) else amount.normalize()
    return f"{exact:f} {currency}" if currency else f"{exact:f}"


def _is_money(said: str) -> bool:
    """Words that bound much else besides prices ("for 2 people", "from 9") need a currency."""
    return _CLAIMED.search(said) is not None or not (
        _NEEDS_UNIT.match(said) or said[:1].isdigit() or re.match(r"between|from", said, re.IGNORECASE)
    )


def _read(said: str) -> tuple[Decimal | None, str | None]:
    low = said.casefold()
    digits = re.search(_NUMBER, low)
    if digits is None:
        return None, None
    unit = (low[: digits.start()] + low[digits.end() :]).strip()
    return _decimal(digits.group()), _CODES.get(unit)


def _decimal(said: str) -> Decimal | None:
    plain = re.sub(r"['\u202f ]", "", said)
    comma, point = plain.rfind(","), plain.rfind(".")
    last = max(comma, point)
    if last >= 0 and len(plain) - last - 1 != 3:  # what follows are hundredths
        plain = plain[:last].replace(",", "").replace(".", "") + "." + plain[last + 1 :]
    else:
        plain = plain.replace(",", "").replace(".", "")
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} , {text[match.end() :]}"
