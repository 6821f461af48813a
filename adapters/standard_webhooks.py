"""Signatures of Standard Webhooks, version 1 (HMAC-SHA-256).

https://github.com/standard-webhooks/standard-webhooks, specification, "Webhook signatures".
"""

import base64
import hmac
from collections.abc import Iterable, Mapping

WINDOW = 300  # seconds that a timestamp may lie in the past or in the future
LONGEST = 256  # characters of an id
MOST = 10  # signatures of one request that are looked at


class BadSignature(Exception):
    """This was not signed with the secret at hand, or not just now."""


def sign(secrets: Iterable[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request. Each secret signs: a receiver who knows one of them is content."""
    signatures = (f"v1,{base64.b64encode(_mac(secret, id, timestamp, body)).decode()}" for secret in secrets)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signatures)}


def verify(secrets: Iterable[bytes], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a request that was signed with one of these secrets. `headers`: by names in small letters.

    All comparisons take the same time whatever is wrong. Raises `BadSignature`.
    """
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not 0 < len(id) <= LONGEST or not id.isprintable():
        raise BadSignature("there is no webhook-id")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("webhook-timestamp is no Unix time in seconds")
    if abs(now - int(timestamp)) > WINDOW:
        raise BadSignature("webhook-timestamp is too old, or in the future")
    given = [one for one in map(_given, headers.get("webhook-signature", "").split(" ")[:MOST]) if one is not None]
    matched = False
    for secret in secrets:
        right = _mac(secret, id, int(timestamp), body)
        for one in given:
            matched |= hmac.compare_digest(right, one)
    if not matched:
        raise BadSignature("webhook-signature does not match")
    return id


def _given(text: str) -> bytes | None:
    version, _, signature = text.partition(",")
    if version != "v1":
        return None
    try:
        return base64.b64decode(signature, validate=True)
    except ValueError:
        return None


def _mac(secret: bytes, id: str, timestamp: int, body: bytes) -> bytes:
    return hmac.digest(secret, b"%s.%d.%s" % (id.encode(), timestamp, body), "sha256")
