"""Who calls, in Postgres: keys by their digests, what of access changed, whose a conversation is."""

import hashlib
import hmac
from dataclasses import dataclass

from domain.permissions import permissions_of
from domain.tenant import Caller
from storage.postgres import Pool, asking, reading
from storage.retry import again

API_KEYS = "api-keys"  # the purpose of the pepper, among those of a master key
MOST_CHANGES = 1000
PREFIX = 12  # characters of a key that are shown: `brain_` and six
_OWNERS = {
    "conversation": "SELECT user_id FROM brain.conversations WHERE tenant_id = $1 AND id = $2",
    "message": "SELECT c.user_id FROM brain.messages m JOIN brain.conversations c ON c.tenant_id = m.tenant_id"
    " AND c.id = m.conversation_id WHERE m.tenant_id = $1 AND m.id = $2",
    "turn": "SELECT c.user_id FROM brain.turns t JOIN brain.conversations c ON c.tenant_id = t.tenant_id"
    " AND c.id = t.conversation_id WHERE t.tenant_id = $1 AND t.id = $2",
}


@dataclass(frozen=True, slots=True)
class AccessChange:
    """`kind`: tenant, key, user, role, token, signing, cache or catalogue; `subject`: the id of what changed."""

    version: int
    tenant: str
    kind: str
    subject: str


def key_hash(api_key: str, pepper: bytes = b"") -> bytes:
    """What is kept of a key: HMAC-SHA-256 under `pepper`, which no database holds; without one, as of keys made before,
    SHA-256. Keys hold 256 random bits, so a fast hash is enough (no guessing to slow down). It ends with the name of
    its pepper, so that what a replaced one still holds can be counted."""
    if not pepper:
        return hashlib.sha256(api_key.encode()).digest()
    return hmac.digest(pepper, api_key.encode(), "sha256") + pepper_name(pepper)


def pepper_name(pepper: bytes) -> bytes:
    return hashlib.sha256(b"brain:pepper:" + pepper).digest()[:4]


def shown(api_key: str) -> str:
    """The part of a key that may be shown: its beginning, or nothing of one too short to spare it."""
    return api_key[:PREFIX] if len(api_key) >= 4 * PREFIX - 8 else ""


class Access:
    """`peppers`: of the present master key, then of those before it."""

    _pool: Pool
    _peppers: tuple[bytes, ...] = ()

    @again
    async def find_api_key(self, api_key: str) -> Caller | None:
        """The caller of a key that counts: not revoked, not expired, its tenant and its user active."""
        digests = [key_hash(api_key, pepper) for pepper in (*self._peppers, b"")]
        async with asking(self._pool) as lent:
            row = await lent.fetchrow("SELECT * FROM brain.find_key($1)", digests)
            if row is not None and row["hash"] in digests[1:-1]:
                await lent.execute("SELECT brain.rehash_key($1, $2)", row["hash"], digests[0])
        if row is None:
            return None
        ends = row["expires_at"]
        return Caller(
            row["tenant_id"],
            row["key_id"],
            row["role"],
            permissions_of(row["role"], row["permissions"], row["scopes"]),
            row["user_id"],
            None if ends is None else ends.timestamp(),
        )

    async def access_version(self) -> int:
        async with asking(self._pool) as lent:
            return int(await lent.fetchval("SELECT version FROM brain.access_version"))

    async def access_since(self, version: int) -> list[AccessChange] | None:
        """What changed after this version, the oldest first; None where it is too much to tell."""
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT * FROM brain.access_since($1, $2)", version, MOST_CHANGES + 1)
        if len(rows) > MOST_CHANGES:
            return None
        return [AccessChange(row["version"], row["tenant_id"], row["kind"], row["subject"]) for row in rows]

    @again
    async def user_of(self, tenant: str, what: str, value: str) -> str | None:
        """The user of a conversation, or of that of a message or a turn; None where it has none, or is not there."""
        async with reading(self._pool, tenant) as lent:
            found: str | None = await lent.fetchval(_OWNERS[what], tenant, value)
        return found
