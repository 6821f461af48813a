"""Personal data in a text, by its form: e-mail and IP addresses, telephone, bank account and card numbers.

Numbers count only where they can be ones: telephone numbers by Google's rules of each country (libphonenumber),
accounts by their check digits (ISO 13616, modulo 97 of ISO/IEC 7064), cards by theirs (Luhn, ISO/IEC 7812-1). Names and
postal addresses have no form, and are not found.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from phonenumbers import Leniency, PhoneNumberMatcher

Kind = Literal["email", "phone", "iban", "card", "ip"]

_EMAIL = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<!\d)[2-6]\d{3}(?:[ -]?\d){8,15}(?!\d)")
_IP4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(r"(?<![\w+])[+(]?\d[\d ()./\-\u2010-\u2015]{4,24}\d(?!\w)")
_AMERICAN = re.compile(r"(?:1[ .-]?)?\d{3}[ .-]\d{3}[ .-]\d{4}")
_NATIONAL = ("US", "GB", "DE", "FR")  # without a country code a number counts where it is grouped as one of these

MOST = 100  # possible telephone numbers of a text that are looked at: each costs up to 2 ms, further ones count unseen


class Found(NamedTuple):
    start: int
    end: int
    kind: Kind


def found(text: str) -> list[Found]:
    """In order, without overlaps: of those that do, the longer one."""
    spans = sorted(_all(text), key=lambda one: (one.start, -one.end))
    kept: list[Found] = []
    for span in spans:
        if kept and span.start < kept[-1].end:
            if span.end > kept[-1].end:
                kept[-1] = kept[-1]._replace(end=span.end)
            continue
        kept.append(span)
    return kept


def masked(text: str) -> str:
    """The text with a star in the place of each letter and digit of personal data. As long as it was, so that whatever
    counts its characters (entities, deltas of a stream) stays right."""
    parts, last = [], 0
    for start, end, _ in found(text):
        parts += [text[last:start], "".join("*" if one.isalnum() else one for one in text[start:end])]
        last = end
    return "".join([*parts, text[last:]])


def _all(text: str) -> Iterator[Found]:
    if "@" in text:
        yield from (Found(*match.span(), "email") for match in _EMAIL.finditer(text))
    if ":" in text:
        yield from (Found(*match.span(), "ip") for match in _IP6.finditer(text) if _is_ip(match.group()))
    if not any(one.isdecimal() for one in text):
        return
    yield from (Found(*match.span(), "ip") for match in _IP4.finditer(text) if _is_ip(match.group()))
    yield from _checked(text, _IBAN, "iban", _is_iban)
    yield from _checked(text, _CARD, "card", _is_card)
    looked = 0
    for match in _PHONE.finditer(text):
        said = match.group()
        if sum(one.isdecimal() for one in said) >= 7 and (said[0] in "+(0" or _AMERICAN.fullmatch(said)):
            looked += 1
            if looked > MOST:
                yield Found(*match.span(), "phone")
            else:
                yield from _phones(said, match.start())


def _checked(text: str, pattern: re.Pattern[str], kind: Kind, sound: Callable[[str], bool]) -> Iterator[Found]:
    """Words that follow may look like a part of it: the longest beginning whose check digits are right counts."""
    for match in pattern.finditer(text):
        start, end = match.span()
        while end > start:
            if sound(text[start:end].replace(" ", "").replace("-", "")):
                yield Found(start, end, kind)
                break
            end = max(text.rfind(" ", start, end), text.rfind("-", start, end))


def _phones(words: str, at: int) -> Iterator[Found]:
    said = "+" + words[2:] if words.startswith("00") else words
    shift = len(words) - len(said)
    for region in (None,) if said.startswith("+") else _NATIONAL:
        leniency = Leniency.VALID if region is None else Leniency.STRICT_GROUPING
        for match in PhoneNumberMatcher(said, region, leniency=leniency):
            start = 0 if match.start == 0 else match.start + shift
            yield Found(at + start, at + match.end + shift, "phone")


def _is_ip(said: str) -> bool:
    try:
        address = ipaddress.ip_address(said)
    except ValueError:
        return False
    return not address.is_unspecified


def _is_iban(said: str) -> bool:
    if not 15 <= len(said) <= 34 or not said.isascii():
        return False
    return int("".join(str(int(one, 36)) for one in said[4:] + said[:4])) % 97 == 1


def _is_card(said: str) -> bool:
    if not 12 <= len(said) <= 19 or not said.isascii():
        return False
    doubled = [int(one) * (1 + place % 2) for place, one in enumerate(reversed(said))]
    return sum(digit - 9 * (digit > 9) for digit in doubled) % 10 == 0
