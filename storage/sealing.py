"""Secrets at rest, by envelope encryption: each is sealed under a key of its own, which the master key seals.

AES-256-GCM (NIST SP 800-38D), its nonces random: a master key seals one key of 32 bytes a secret, far from
the 2^32 that random nonces allow. To replace the master key only the small keys are sealed anew.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE = 12  # bytes
_HEX = re.compile(r"[0-9a-fA-F]{64}")


class CannotOpen(Exception):
    """What is sealed cannot be opened with the master keys at hand."""


@dataclass(frozen=True, slots=True, repr=False)
class MasterKeys:
    """`keys`: 32 bytes each; the first seals, all open. Their `repr` shows none of them."""

    keys: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str) -> "MasterKeys":
        """Keys as 64 hexadecimal digits or in base64, separated by commas; the first seals. Raises ValueError."""
        keys = tuple(_key(one.strip()) for one in text.split(",") if one.strip())
        if not keys:
            raise ValueError("there is no master key")
        return cls(keys)

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """A key of 32 bytes for `purpose` of each master key, in their order (HKDF, RFC 5869)."""
        return tuple(HKDF(SHA256(), 32, None, b"brain:" + purpose.encode()).derive(key) for key in self.keys)

    def seal(self, secret: bytes, name: str) -> dict[str, str]:
        """`secret`, bound to its `name`: it opens under no other."""
        key = AESGCM.generate_key(256)
        return {**self._wrapped(key, name), "text": _encrypted(key, secret, name)}

    def open(self, sealed: Mapping[str, Any], name: str) -> bytes:
        """Raises `CannotOpen`."""
        return _decrypted(self._unwrapped(sealed, name), str(sealed.get("text", "")), name)

    def resealed(self, sealed: Mapping[str, Any], name: str) -> dict[str, str] | None:
        """The same under the first master key; None where it is so already. Raises `CannotOpen`."""
        if sealed.get("master") == _name(self.keys[0]):
            return None
        return {**self._wrapped(self._unwrapped(sealed, name), name), "text": str(sealed["text"])}

    def _wrapped(self, key: bytes, name: str) -> dict[str, str]:
        return {"master": _name(self.keys[0]), "key": _encrypted(self.keys[0], key, name)}

    def _unwrapped(self, sealed: Mapping[str, Any], name: str) -> bytes:
        for master in self.keys:
            if _name(master) == sealed.get("master"):
                return _decrypted(master, str(sealed.get("key", "")), name)
        raise CannotOpen("it is sealed by a master key that is not at hand")


def _key(text: str) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if set(text) & set("-_") else None, validate=True
        )
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("a master key is 32 random bytes: 64 hexadecimal digits, or in base64")
    return key


def _name(key: bytes) -> str:
    return hashlib.sha256(b"brain:name:" + key).hexdigest()[:16]


def _encrypted(key: bytes, secret: bytes, name: str) -> str:
    nonce = os.urandom(NONCE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secret, name.encode())).decode()


def _decrypted(key: bytes, text: str, name: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
        return AESGCM(key).decrypt(raw[:NONCE], raw[NONCE:], name.encode())
    except (ValueError, InvalidTag):
        raise CannotOpen("it was changed, or is bound to another name") from None
