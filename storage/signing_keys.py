"""The keys that sign access tokens: public parts for whoever verifies, private ones sealed by the master keys.

A new key signs a few seconds after it was made, so that every replica knows it by then; the one before it verifies
until the last token that it signed has expired.
"""

import base64
import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from storage.postgres import Connection, Pool, asking
from storage.retry import again
from storage.sealing import CannotOpen, MasterKeys

log = logging.getLogger("brain.access")

ALGORITHM = "EdDSA"  # Ed25519 (RFC 8037): no signature can be turned into another that is valid, as ECDSA's can
PREFIX = "at-"  # of the ids of keys for access tokens: what signs other things signs no token
AHEAD = 5.0  # seconds from a key's making to its first signature, where another one signs meanwhile
SLACK = 60.0  # seconds that a key verifies beyond the life of the last token that it signed
_LOCK = 7216


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`public`: a JSON Web Key (RFC 7517). `private`: None where the master key that sealed it is not at hand; it
    verifies all the same. Times as of Postgres' clock; None: no end."""

    id: str
    algorithm: str
    public: dict[str, Any]
    private: Ed25519PrivateKey | None
    signs_from: datetime
    signs_until: datetime | None
    verifies_until: datetime | None

    @property
    def lasting(self) -> bool:
        """Whether it signs, and no end of that is set."""
        return self.private is not None and self.signs_until is None


class PostgresSigningKeys:
    """`lifetime`: seconds that a token lives. Every method may raise `Unavailable`."""

    def __init__(self, pool: Pool, master: MasterKeys, lifetime: float) -> None:
        self._pool, self._master, self._lifetime = pool, master, lifetime

    @again
    async def present(self) -> list[SigningKey]:
        """The keys whose tokens count, the oldest first; one is made where none signs."""
        async with asking(self._pool) as lent:
            found = await self._all(lent)
            if any(key.lasting for key in found):
                return found
            async with lent.transaction():
                await lent.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                found = await self._all(lent)
                if not any(key.lasting for key in found):
                    await self._make(lent, 0)
                    found = await self._all(lent)
            return found

    async def rotate(self) -> str:
        """Make another key, which takes over in `AHEAD` seconds; its id."""
        async with asking(self._pool) as lent, lent.transaction():
            await lent.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            before = [key for key in await self._all(lent) if key.signs_until is None]
            made, at = await self._make(lent, AHEAD if before else 0)
            last = at + timedelta(seconds=self._lifetime + SLACK)
            for key in before:
                await lent.execute("SELECT brain.end_signing_key($1, $2, $3)", key.id, at, last)
        return made

    async def _all(self, lent: Connection) -> list[SigningKey]:
        rows = await lent.fetch(
            "SELECT * FROM brain.signing_keys WHERE id LIKE $1"
            " AND (verifies_until IS NULL OR verifies_until > clock_timestamp()) ORDER BY signs_from, id",
            PREFIX + "%",
        )
        return [
            SigningKey(
                row["id"],
                row["algorithm"],
                row["public"],
                self._opened(row["sealed"], row["id"]),
                row["signs_from"],
                row["signs_until"],
                row["verifies_until"],
            )
            for row in rows
        ]

    def _opened(self, sealed: dict[str, Any], key_id: str) -> Ed25519PrivateKey | None:
        try:
            return Ed25519PrivateKey.from_private_bytes(self._master.open(sealed, _name(key_id)))
        except CannotOpen as error:
            log.warning("the signing key %s signs nothing here: %s", key_id, error)
            return None

    async def _make(self, lent: Connection, ahead: float) -> tuple[str, datetime]:
        private = Ed25519PrivateKey.generate()
        public = jwk(private.public_key())
        key_id = PREFIX + thumbprint(public)
        at: datetime = await lent.fetchval("SELECT clock_timestamp() + $1", timedelta(seconds=ahead))
        sealed = self._master.seal(private.private_bytes_raw(), _name(key_id))
        public |= {"kid": key_id, "use": "sig", "alg": ALGORITHM}
        await lent.execute("SELECT brain.put_signing_key($1, $2, $3, $4, $5)", key_id, ALGORITHM, public, sealed, at)
        return key_id, at


def jwk(public: Ed25519PublicKey) -> dict[str, Any]:
    """As RFC 8037 writes an Ed25519 key."""
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"crv": "Ed25519", "kty": "OKP", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}


def public_key(public: dict[str, Any]) -> Ed25519PublicKey:
    """From a JSON Web Key that `jwk` wrote."""
    text: str = public["x"]
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def thumbprint(public: dict[str, Any]) -> str:
    """Of a JSON Web Key (RFC 7638), SHA-256."""
    digest = hashlib.sha256(orjson.dumps(public, option=orjson.OPT_SORT_KEYS)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _name(key_id: str) -> str:
    return f"signing-key:{key_id}"
