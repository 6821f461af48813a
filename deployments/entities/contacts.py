"""Addresses and numbers that reach or name something: e-mail, telephone, web address, order number."""

from deployments.entities.candidates import Candidate
from deployments.entities.regular import built_in, spans

_EMAIL = built_in(r"[\pL\pN._%+'-]+@(?:[\pL\pN-]+\.)+\pL\pL+")
_URL = built_in(
    r"(?:https?://|www\.)[^\s<>\"'`{}|\\^]+"
    r"|(?:[a-z0-9-]+\.)+(?:com|org|net|io|co|uk|de|fr|eu|dev|app|shop|store|info|biz)"
    r"(?:/[^\s<>\"'`{}|\\^]*)?"
)
_PHONE = built_in(
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}|\(\d{2,5}\)[ .-]?\d{2,5}(?:[ .-]?\d{2,5}){1,3}"
    r"|\d{2,5}(?:[ .-]\d{2,5}){2,5}|\d{3}[ .-]\d{4}|\d{7,13}"
)
_NAMED_ORDER = built_in(
    r"(?:orders?|purchases?|parcels?|packages?|shipments?|tracking|invoices?|tickets?|references?|ref|bookings?|"
    r"reservations?|confirmation)\.?\s{0,3}(?:(?:numbers?|num|no|nr|id|code)\.?\s{0,3})?(?:is\s|:|-)?\s{0,3}"
    r"(#?[\pL\pN][\pL\pN_/-]+)"
)
_CODE = built_in(r"#[\pL\pN][\pL\pN_/-]+|[a-z]{1,4}-?\d[a-z\d-]+")
_DIGITS = built_in(r"\d{5,20}")
_ENDS = ".,;:!?"


def emails(text: str) -> list[Candidate]:
    """Lower case from the @ on, where case has no meaning (RFC 5321)."""
    candidates = []
    for start, end in spans(_EMAIL, text):
        while text[start] in ".'-%+":
            start += 1
        if text[start] != "@" and end - start <= 254:
            local, _, domain = text[start:end].rpartition("@")
            candidates.append(Candidate(start, end, f"{local}@{domain.lower()}", 1.0))
    return candidates


def urls(text: str) -> list[Candidate]:
    """As written, without the punctuation of the sentence around it."""
    candidates = []
    for match in _URL.finditer(text):
        start, end = match.span()
        if start and (text[start - 1].isalnum() or text[start - 1] in "@_-."):
            continue
        while text[end - 1] in _ENDS or (text[end - 1] in ")]" and _unopened(text[start:end])):
            end -= 1
        if text[end : end + 1] != "@":
            candidates.append(Candidate(start, end, text[start:end], 0.95))
    return candidates


def _unopened(said: str) -> bool:
    closing = said[-1]
    return said.count(closing) > said.count("(" if closing == ")" else "[")


def phones(text: str) -> list[Candidate]:
    """Digits alone, with the "+" of an international one. 7 to 15 digits (ITU-T E.164); less sure without a sign."""
    candidates = []
    for start, end in spans(_PHONE, text):
        said = text[start:end]
        digits = "".join(character for character in said if character.isdecimal())
        if 7 <= len(digits) <= 15 and not _a_date(said):
            sure = 0.7 if said.isdecimal() else 0.95
            candidates.append(Candidate(start, end, ("+" if said[0] == "+" else "") + digits, sure))
    return candidates


def _a_date(said: str) -> bool:
    parts = said.replace(".", "-").replace(" ", "-").split("-")
    return len(parts) == 3 and sorted(map(len, parts))[-1] == 4 and max(map(len, parts[:2])) <= 4 and len(said) <= 10


def order_numbers(text: str) -> list[Candidate]:
    """What follows "order", "invoice no." and the like and has a digit; less sure: any code of five or more digits."""
    found: dict[tuple[int, int], float] = {}
    for pattern, score in ((_CODE, 0.75), (_DIGITS, 0.75), (_NAMED_ORDER, 0.95)):
        for start, end in spans(pattern, text):
            while text[end - 1] in "-_/":
                end -= 1
            digits = sum(character.isdecimal() for character in text[start:end])
            if end - start <= 40 and digits >= (3 if text[start] == "#" else 4):
                found[start, end] = score
    return [Candidate(start, end, text[start:end].lstrip("#"), score) for (start, end), score in found.items()]
