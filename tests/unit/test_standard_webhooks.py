"""Signatures of Standard Webhooks: the published example, and what is refused."""

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.posting import retry_after
from adapters.standard_webhooks import WINDOW, BadSignature, sign, verify

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""As in the specification's own tests (libraries/python/tests/test_webhooks.py of standard-webhooks)."""


def test_the_published_example_is_signed_and_verified():
    headers = sign([SECRET], ID, AT, BODY)
    assert headers == {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}
    assert verify([SECRET], headers, BODY, AT + 10) == ID


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3, unique=True), st.binary(max_size=200))
def test_whoever_knows_one_of_the_secrets_is_content_and_nobody_else(secrets, body):
    headers = sign(secrets, ID, AT, body)
    for secret in secrets:
        assert verify([secret], headers, body, AT) == ID
        assert verify([b"x" * 24, secret], headers, body, AT) == ID
    for wrong, changed in ((b"another secret of 24 bytes", body), (secrets[0], body + b" ")):
        with pytest.raises(BadSignature):
            verify([wrong], headers, changed, AT)


@pytest.mark.parametrize("late", [-WINDOW - 1, WINDOW + 1])
def test_what_was_not_signed_just_now_is_refused(late):
    headers = sign([SECRET], ID, AT, BODY)
    assert verify([SECRET], headers, BODY, AT + WINDOW) == ID
    with pytest.raises(BadSignature, match="too old, or in the future"):
        verify([SECRET], headers, BODY, AT + late)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": ""},
        {"webhook-id": ID + "x"},
        {"webhook-id": "x" * 300},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": f" {AT}"},
        {"webhook-timestamp": str(AT + 1)},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,not base64"},
        {"webhook-signature": SIGNATURE.replace("v1", "v2")},
        {"webhook-signature": SIGNATURE[3:]},
        {"webhook-signature": " ".join(["v1,AAAA"] * 10 + [SIGNATURE])},
    ],
)
def test_headers_that_are_wrong_are_refused(changed):
    with pytest.raises(BadSignature):
        verify([SECRET], sign([SECRET], ID, AT, BODY) | changed, BODY, AT)


def test_a_signature_among_others_counts():
    headers = sign([SECRET], ID, AT, BODY) | {"webhook-signature": f"v2,x v1a,y v1,AAAA {SIGNATURE}"}
    assert verify([SECRET], headers, BODY, AT) == ID


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("0", 0),
        ("99999999999999999999", 86_400),
        ("soon", None),
        ("-5", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text, seconds):
    assert retry_after(text, 60.0) == seconds


def test_what_is_signed_now_is_taken_now():
    headers = sign([SECRET], ID, int(time.time()), BODY)
    assert verify([SECRET], headers, BODY, time.time()) == ID


def documented(language: str) -> str:
    """The function of docs/webhooks.md."""
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if "verified" in block]
    return code


def test_the_documented_python_verifies_what_is_sent():
    found: dict[str, Any] = {}
    exec(documented("python"), found)  # noqa: S102 (of our own documentation)
    now, secret = int(time.time()), "whsec_" + base64.b64encode(SECRET).decode()
    headers = sign([b"n" * 32, SECRET], ID, now, BODY)
    assert found["verified"](secret, headers, BODY)
    assert not found["verified"](secret, headers, BODY + b" ")
    assert not found["verified"]("whsec_" + base64.b64encode(b"o" * 32).decode(), headers, BODY)
    assert not found["verified"](secret, sign([SECRET], ID, now - 400, BODY), BODY)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_documented_javascript_verifies_what_is_sent(tmp_path):
    headers = sign([b"n" * 32, SECRET], ID, int(time.time()), BODY)
    secret = "whsec_" + base64.b64encode(SECRET).decode()
    given = [[secret, headers, BODY.decode()], [secret, headers, BODY.decode() + " "]]
    script = tmp_path / "check.mjs"
    calls = f"for (const [s, h, b] of {json.dumps(given)}) console.log(verified(s, h, Buffer.from(b)));"
    script.write_text(documented("js") + calls)
    told = subprocess.run(["node", str(script)], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["true", "false"]
