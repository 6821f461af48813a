"""Access tokens as this service makes them, and as it never would: for tests of what is refused."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from domain.ids import new_id
from storage.signing_keys import SigningKey


def signed(
    key: SigningKey,
    claims: Mapping[str, Any],
    header: Mapping[str, Any] | None = None,
    by: Ed25519PrivateKey | bytes | None = None,
    **changed: Any,
) -> str:
    """A token of `claims` that counts for an hour. `header` and `changed`: what its header and its claims say instead,
    None leaves out; `by`: what signs it instead, a secret by HMAC-SHA256, none at all if it is empty."""
    now = time.time()
    head = {"alg": "EdDSA", "typ": "at+jwt", "kid": key.id, **(header or {})}
    content = {"iat": now, "exp": int(now + 3600), "jti": new_id("tok"), **claims, **changed}
    told = b".".join(
        _part(json.dumps({k: v for k, v in one.items() if v is not None}).encode()) for one in (head, content)
    )
    by = key.private if by is None else by
    return f"{told.decode()}.{_part(_signature(told, by)).decode()}"


def _signature(told: bytes, by: Ed25519PrivateKey | bytes | None) -> bytes:
    assert by is not None
    if isinstance(by, bytes):
        return hmac.digest(by, told, hashlib.sha256) if by else b""
    return by.sign(told)


def spellings(key: SigningKey) -> dict[str, bytes]:
    """The public key in each form that somebody may take for the secret of an HMAC (key confusion)."""
    assert key.private is not None
    public = key.private.public_key()
    return {
        "PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "bytes": public.public_bytes_raw(),
        "x of its JSON": key.public["x"].encode(),
    }


def _part(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
