"""Personal data by its form: what is found, what is not, and that a masked text counts as the text did."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.personal import MOST, found, masked

PERSONAL = {
    "jane.doe+shop@acme.co.uk": "email",
    "größe@müller.example": "email",
    "+49 30 1234567": "phone",
    "+1 (415) 555-2671": "phone",
    "0049 30 1234567": "phone",
    "(415) 555-2671": "phone",
    "415-555-2671": "phone",
    "020 7946 0958": "phone",
    "06 12 34 56 78": "phone",
    "DE89 3704 0044 0532 0130 00": "iban",
    "gb29nwbk60161331926819": "iban",
    "4111 1111 1111 1111": "card",
    "5500-0000-0000-0004": "card",
    "378282246310005": "card",
    "192.168.1.10": "ip",
    "2001:db8::8a2e:370:7334": "ip",
}
"""Of test ranges: RFC 2606, ITU and Ofcom's numbers for drama, card schemes' test numbers, RFC 3849."""

ORDINARY = (
    "order 12345678 of 2026-11-29 at 10:30:00",
    "3 x 12,50 is 37,50 EUR",
    "version 1.2.3 and 10.20.300.4",
    "tracking 1Z999AA10123456784",
    "4111 1111 1111 1112",
    "user@localhost, @home, a@b",
    "std::vector<int> and ::",
    "room 1205, floor 12, 1500 people, 20 000 000 of them",
    "",
)


@pytest.mark.parametrize(("data", "kind"), PERSONAL.items())
@pytest.mark.parametrize("around", ["{}", "it is {}, thank you", "({})", "first {} BIC COBADEFF", "x\n{}\ny"])
def test_it_is_found_in_a_sentence(data: str, kind: str, around: str) -> None:
    text = around.format(data)
    spans = [(text[one.start : one.end].strip("("), one.kind) for one in found(text)]
    assert [one for _, one in spans] == [kind], spans
    at = text.index(data)
    hidden = masked(text)
    assert not any(one.isalnum() for one in hidden[at : at + len(data)]), hidden
    assert hidden[:at].rstrip("(") == text[:at].rstrip("(") and hidden[at + len(data) :] == text[at + len(data) :]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert masked(text) == text


words = st.sampled_from([*PERSONAL, *ORDINARY, "and", "or", "+", "00", "@", ":", "語", "\u00a0", "\n", "7", "*"])


@given(st.lists(words | st.text(max_size=8), max_size=12).map(" ".join) | st.text())
def test_places_in_a_text_stay_where_they_are(text: str) -> None:
    hidden = masked(text)
    assert len(hidden) == len(text)
    for was, now in zip(text, hidden, strict=True):
        assert now == was or (now == "*" and was.isalnum())
    spans = found(text)
    assert all(one.start < one.end <= len(text) for one in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


def test_several_in_one_text_are_told_apart_and_a_long_text_is_done_soon() -> None:
    text = " ; ".join(PERSONAL)
    assert [one.kind for one in found(text)] == list(PERSONAL.values())
    for unit in ("0 1 ", "1 ", "+1-", "0123456789 ", "a@", "AA00 ", "1.", "4111-", ":", "+49 30 1234567 "):
        began = time.process_time()
        masked((unit * 32_000)[:32_000])
        assert time.process_time() - began < 20, unit  # seconds, where a rule without a bound takes minutes
    many = "+49 30 1234567, " * (2 * MOST)
    assert not any(one.isdecimal() for one in masked(many)), "more than are looked at are masked unseen"
