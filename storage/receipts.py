"""Signed receipts: a detached JSON Web Signature (RFC 7515, appendix F) by Ed25519 (RFC 8037) over canonical JSON.

The key is derived from the master key, so each replica has the same one and none is kept. What is signed is the receipt
without its `signature`, as RFC 8785 writes it: names in order, no blanks, UTF-8. A receipt holds text and whole numbers
alone, and names in ASCII, for which that is what orjson writes.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PURPOSE = "receipts"  # among those of a master key
TYPE = "erasure-receipt+jws"


class BadReceipt(Exception):
    """This is no receipt that one of these keys has signed."""


class Receipts:
    """`seeds`: 32 bytes each, of the present master key, then of those before it."""

    def __init__(self, seeds: tuple[bytes, ...]) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seeds[0])
        self.keys = [_jwk(Ed25519PrivateKey.from_private_bytes(seed).public_key()) for seed in seeds]

    def signed(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with its `signature`; the same receipt has the same one."""
        header = _encoded(orjson.dumps({"alg": "EdDSA", "kid": self.keys[0]["kid"], "typ": TYPE}))
        signature = self._key.sign(_signed_bytes(header, receipt))
        return {**receipt, "signature": f"{header}..{_encoded(signature)}"}


def verify(receipt: Any, keys: Iterable[Mapping[str, Any]]) -> str:
    """The id of the key that signed the receipt, one of `keys` (JSON Web Keys). Raises `BadReceipt`."""
    if not isinstance(receipt, dict) or not isinstance(receipt.get("signature"), str):
        raise BadReceipt("it holds no signature")
    header, _, signature = receipt["signature"].partition("..")
    try:
        told = orjson.loads(_decoded(header))
        raw = _decoded(signature)
        kid, sound = str(told["kid"]), (told["alg"], told["typ"]) == ("EdDSA", TYPE)
    except (ValueError, LookupError, TypeError):
        raise BadReceipt("its signature is no detached JWS") from None
    if not sound:
        raise BadReceipt("its signature is of another kind")
    for key in keys:
        if (key.get("kid"), key.get("kty"), key.get("crv")) == (kid, "OKP", "Ed25519"):
            try:
                public = Ed25519PublicKey.from_public_bytes(_decoded(str(key["x"])))
                public.verify(raw, _signed_bytes(header, receipt))
            except (ValueError, LookupError, TypeError, InvalidSignature):
                raise BadReceipt("it was changed after it was signed") from None
            return kid
    raise BadReceipt(f"the key {kid[:64]!r} that signed it is not among the published ones")


def _signed_bytes(header: str, receipt: Mapping[str, Any]) -> bytes:
    payload = {name: value for name, value in receipt.items() if name != "signature"}
    return f"{header}.{_encoded(orjson.dumps(payload, option=orjson.OPT_SORT_KEYS))}".encode()


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    x = _encoded(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()  # RFC 7638
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": _encoded(thumbprint), "alg": "EdDSA", "use": "sig"}


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
