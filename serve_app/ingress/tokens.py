"""Access tokens: JSON Web Tokens (RFC 7519) of the profile of RFC 9068, signed and verified by keys that are at hand.

Nothing in a token chooses how it is verified: the algorithm is the issuer's one, a key id names a key of the set that
was loaded before, and what a header could name besides is refused.
"""

import binascii
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from domain.errors import Unavailable
from domain.ids import is_id, new_id
from storage.signing_keys import ALGORITHM, SigningKey, public_key

TYPE = "at+jwt"
AHEAD = 30.0  # seconds that the issuing clock may be before this one
_HEADER = frozenset(("alg", "typ", "kid"))
_REQUIRED = ["iss", "aud", "sub", "tenant", "jti", "iat", "exp"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. `subject`: a user's id or an OAuth client's. `scopes`: None: all that the role has.
    Times in Unix seconds."""

    tenant: str
    subject: str
    id: str
    issued_at: float
    expires_at: float
    role: str | None = None
    scopes: tuple[str, ...] | None = None
    session: str | None = None
    client: str | None = None


class Tokens:
    """Makes and verifies this service's tokens. `lifetime`: seconds. `use` gives it its keys, and must come first."""

    def __init__(self, issuer: str, audience: str, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self.issuer, self.audience, self.lifetime = issuer, audience, lifetime
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = ()
        self._public: Mapping[str, tuple[Ed25519PublicKey, float | None]] = {}

    def use(self, keys: Iterable[SigningKey]) -> None:
        """These keys, and no others."""
        self._keys = tuple(keys)
        self._public = {key.id: (public_key(key.public), _seconds(key.verifies_until)) for key in self._keys}

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        return {"keys": [key.public for key in self._keys]}

    def issue(
        self,
        tenant: str,
        subject: str,
        role: str,
        scopes: Sequence[str] | None = None,
        session: str | None = None,
        client: str | None = None,
    ) -> tuple[str, Claims]:
        """A token that counts from now on for `lifetime` seconds. Raises `Unavailable` where no key is at hand."""
        now = self._clock()
        key_id, private = self._signing(now)
        claims = Claims(
            tenant, subject, new_id("tok"), now, int(now + self.lifetime), role,
            None if scopes is None else tuple(scopes), session, client,
        )  # fmt: skip
        content = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": client or subject,
            "tenant": tenant,
            "role": role,
            "scope": None if scopes is None else " ".join(scopes),
            "sid": session,
            "jti": claims.id,
            "iat": now,
            "exp": claims.expires_at,
        }
        content = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(content, private, ALGORITHM, {"typ": TYPE, "kid": key_id}), claims

    def verified(self, token: str) -> Claims | None:
        """What a token of this service says; None where it does not count."""
        header = header_of(token)
        if header is None or header.keys() != _HEADER or header["alg"] != ALGORITHM or header["typ"] != TYPE:
            return None
        kid = header["kid"]
        key, until = self._public.get(kid, (None, None)) if isinstance(kid, str) else (None, None)
        now = self._clock()
        if key is None or (until is not None and until <= now):
            return None
        try:
            content = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                options={"require": _REQUIRED, "strict_aud": True, "verify_iat": False, "verify_exp": False},
            )
        except jwt.InvalidTokenError:
            return None
        return _claims(content, now)

    def _signing(self, now: float) -> tuple[str, Ed25519PrivateKey]:
        """The newest key that signs now. Where this clock is behind the database's, the oldest that is left."""
        able = [(key, key.private) for key in self._keys if key.private is not None]
        signing = [one for one in able if _signs(one[0], now)]
        if able:
            key, private = signing[-1] if signing else able[0]
            return key.id, private
        raise Unavailable("no signing key is at hand yet")


def _signs(key: SigningKey, now: float) -> bool:
    return key.signs_from.timestamp() <= now and (key.signs_until is None or now < key.signs_until.timestamp())


def header_of(token: str) -> dict[str, Any] | None:
    """The header of what has the form of a signed token, byte for byte as it must be written; else None.

    Decoders of base64 leave bits over at the end of a part, so that several texts mean the same bytes: one of them
    counts, lest a token that was revoked or remembered come again in another spelling.
    """
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        return None
    try:
        decoded = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
        header = orjson.loads(decoded[0])
    except (binascii.Error, ValueError):
        return None
    if any(urlsafe_b64encode(raw).rstrip(b"=").decode() != part for raw, part in zip(decoded, parts, strict=True)):
        return None
    return header if isinstance(header, dict) and "alg" in header else None


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _claims(content: Mapping[str, Any], now: float) -> Claims | None:
    issued, expires = content["iat"], content["exp"]
    texts = [content.get(name) for name in ("role", "scope", "sid", "client_id")]
    if not (is_number(issued) and is_number(expires)) or expires <= now or issued > now + AHEAD:
        return None
    if not is_id(str(content["tenant"]), "ten") or not all(text is None or isinstance(text, str) for text in texts):
        return None
    role, scope, session, client = texts
    return Claims(
        content["tenant"], content["sub"], content["jti"], float(issued), float(expires), role,
        None if scope is None else tuple(scope.split()), session, client,
    )  # fmt: skip
