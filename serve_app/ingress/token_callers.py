"""From an access token to its caller: verified, not revoked, and with the role that whom it names has now."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from domain.errors import Unavailable
from domain.ids import is_id
from domain.permissions import OPERATOR, permissions_of
from domain.tenant import Caller
from serve_app.ingress.outside import OutsideIssuers
from serve_app.ingress.tokens import Claims, Tokens
from storage.access import AccessChange
from storage.revocations import Revocations
from storage.signing_keys import PostgresSigningKeys
from storage.subjects import PostgresSubjects, Subject

STALE = 900.0  # seconds that whom a token names is believed while the database is down
BOUND = 10_000


class TokenCallers:
    """`find` is `Parts.find_token`; `heard` hears what changed of access, and loads at its first call."""

    def __init__(
        self,
        tokens: Tokens,
        keys: PostgresSigningKeys,
        revocations: Revocations,
        subjects: PostgresSubjects,
        outside: OutsideIssuers | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens, self.revocations = tokens, revocations
        self._keys, self._subjects, self._outside, self._now = keys, subjects, outside, now
        self._believed: OrderedDict[tuple[str, str], tuple[float, Subject]] = OrderedDict()

    async def heard(self, changes: list[AccessChange] | None) -> None:
        """Raises `Unavailable`: what changed is told again then."""
        if changes is None:
            self._believed.clear()
            await asyncio.gather(self.load_keys(), self.revocations.load())
            return
        if revoked := [change.subject for change in changes if change.kind == "token"]:
            await self.revocations.heard(revoked)
        if any(change.kind == "signing" for change in changes):
            await self.load_keys()
        for change in changes:
            if change.kind in ("tenant", "role"):
                for key in [key for key in self._believed if key[0] == change.tenant]:
                    del self._believed[key]
            elif change.kind in ("user", "key"):
                self._believed.pop((change.tenant, change.subject), None)

    async def load_keys(self) -> None:
        self.tokens.use(await self._keys.present())

    async def find(self, token: str) -> Caller | None:
        """The caller of a token that counts. Raises `Unavailable` where that cannot be told."""
        claims = self.tokens.verified(token)
        if claims is None:
            return await self._from_outside(token)
        if await self.revocations.revoked(claims.tenant, [claims.id, *([claims.session] if claims.session else [])]):
            return None
        subject = await self._subject(claims)
        if subject is None or (subject.tokens_from is not None and claims.issued_at < subject.tokens_from.timestamp()):
            return None
        return _caller(claims, subject)

    async def _subject(self, claims: Claims) -> Subject | None:
        key = (claims.tenant, claims.subject)
        client = is_id(claims.subject, "cli")
        asked = self._now()
        try:
            found = await (self._subjects.client(*key) if client else self._subjects.user(*key))
        except Unavailable:
            believed = self._believed.get(key)
            if believed is None or self._now() - believed[0] > STALE:
                raise
            return believed[1]
        if found is None:
            self._believed.pop(key, None)
        else:
            self._believed[key] = (asked, found)
            self._believed.move_to_end(key)
            if len(self._believed) > BOUND:
                self._believed.popitem(last=False)
        return found

    async def _from_outside(self, token: str) -> Caller | None:
        named = None if self._outside is None else self._outside.verified(token)
        if named is None:
            return None
        token_id = "x" + hashlib.sha256(f"{named.issuer}\n{named.token}".encode()).hexdigest()
        if await self.revocations.revoked(named.tenant, [token_id]):
            return None
        subject = await self._subjects.outside(
            named.tenant, named.issuer, named.subject, named.user, named.email, named.name, named.role
        )
        if subject is None or subject.user is None or subject.role == OPERATOR:
            return None
        if subject.tokens_from is not None and named.issued_at < subject.tokens_from.timestamp():
            return None
        return Caller(
            named.tenant,
            subject.user,
            subject.role,
            permissions_of(subject.role, subject.custom, named.scopes),
            subject.user,
            named.expires_at,
            token_id,
        )


def _caller(claims: Claims, subject: Subject) -> Caller | None:
    if subject.role == OPERATOR:
        return None
    permissions = permissions_of(subject.role, subject.custom, claims.scopes)
    if subject.scopes is not None:
        permissions &= permissions_of(subject.role, subject.custom, subject.scopes)
    return Caller(
        claims.tenant,
        claims.subject,
        subject.role,
        permissions,
        subject.user,
        claims.expires_at,
        claims.id,
        claims.session,
    )
