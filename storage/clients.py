"""OAuth clients, and the codes by which users sign in through them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from domain.errors import NotFound
from domain.permissions import GIVEN, UnknownPermission, Wider, permissions_of
from domain.tenant import Caller
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again
from storage.revocations import revoke
from storage.sessions import Session, end_session, open_within

Grant = Literal["authorization_code", "client_credentials"]
CODE_S = 60.0  # seconds that a code counts
_COLUMNS = (
    "id, tenant_id, name, secret_hash IS NOT NULL AS confidential, redirect_uris, grants, role, scopes, created_at"
)


class OAuthClient(BaseModel):
    """A client (RFC 6749). `confidential`: it has a secret. `role`, `scopes`: what it may do by client credentials."""

    id: str
    object: Literal["client"] = "client"
    tenant_id: str
    name: str
    confidential: bool
    redirect_uris: list[str]
    grants: list[Grant]
    role: str
    scopes: list[str] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewClient:
    """What is asked for. `id` is made once per request; `secret` is shown once; `key` and `body_hash` as elsewhere."""

    id: str
    name: str
    secret: str | None
    redirect_uris: list[str]
    grants: list[Grant]
    role: str
    scopes: list[str] | None
    key: str | None = None
    body_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code of a user's consent. `challenge`: of PKCE, S256."""

    code: str
    client_id: str
    user_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...] | None
    session_id: str


class PostgresClients:
    """`peppers`: of the present master key, then of those before it. Every method may raise `Unavailable`; `NotFound`
    where the tenant has no such client. `lifetime`, `kept`: seconds of access tokens and of sessions."""

    def __init__(self, pool: Pool, peppers: tuple[bytes, ...], lifetime: float, kept: float) -> None:
        self._pool, self._peppers, self._lifetime, self._kept = pool, peppers, lifetime, kept

    @again
    async def create(self, caller: Caller, new: NewClient) -> tuple[OAuthClient, bool]:
        """The client, and whether an earlier request made it. Raises `Wider`, `UnknownPermission`,
        `IdempotencyMismatch`."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return OAuthClient.model_validate(first), first["id"] != new.id
            await _check_within(lent, caller, new)
            made = await self._insert(lent, caller, new)
            if new.key is not None:
                await remember(lent, caller, new.key, made.model_dump(mode="json"))
        return made, False

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[OAuthClient]:
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        args: list[Any] = [tenant, query.limit + 1, *([query.after] if query.after is not None else [])]
        beyond = f" AND id {compare} $3" if query.after is not None else ""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.clients WHERE tenant_id = $1{beyond} ORDER BY id {direction} LIMIT $2",
                *args,
            )
        return page_of([OAuthClient.model_validate(dict(row)) for row in rows], query)

    @again
    async def one(self, tenant: str, client_id: str) -> OAuthClient:
        async with reading(self._pool, tenant) as lent:
            row = await _row(lent, tenant, client_id)
        if row is None:
            raise NotFound("there is no such client")
        return OAuthClient.model_validate(dict(row))

    @again
    async def delete(self, caller: Caller, client_id: str) -> list[str]:
        """Remove a client; what was signed in through it ends: the sessions' ids."""
        async with reading(self._pool, caller.tenant) as lent:
            gone = await lent.fetchval(
                "DELETE FROM brain.clients WHERE tenant_id = $1 AND id = $2 RETURNING id", caller.tenant, client_id
            )
            if gone is None:
                raise NotFound("there is no such client")
            rows = await lent.fetch(
                "UPDATE brain.sessions SET revoked_at = clock_timestamp()"
                " WHERE tenant_id = $1 AND client_id = $2 AND revoked_at IS NULL RETURNING id",
                caller.tenant,
                client_id,
            )
            ended = [row["id"] for row in rows]
            await revoke(lent, caller.tenant, ended, self._lifetime)
            await lent.execute("SELECT brain.access_changed($1, 'key', $2)", caller.tenant, client_id)
            await record(lent, caller, "client.delete", client_id)
        return ended

    @again
    async def find(self, client_id: str) -> OAuthClient | None:
        """The client of an id, whichever tenant's it is."""
        async with asking(self._pool) as lent:
            tenant = await lent.fetchval("SELECT tenant_id FROM brain.find_client($1)", client_id)
        if tenant is None:
            return None
        async with reading(self._pool, tenant) as lent:
            row = await _row(lent, tenant, client_id)
        return None if row is None else OAuthClient.model_validate(dict(row))

    @again
    async def has_secret(self, client: OAuthClient, secret: str) -> bool:
        """Whether this is the client's secret."""
        async with reading(self._pool, client.tenant_id) as lent:
            stored = await lent.fetchval(
                "SELECT secret_hash FROM brain.clients WHERE tenant_id = $1 AND id = $2", client.tenant_id, client.id
            )
        digests = [_digest(secret, pepper) for pepper in self._peppers]
        return stored is not None and any(secrets.compare_digest(stored, digest) for digest in digests)

    @again
    async def put_code(self, tenant: str, new: NewCode) -> None:
        async with reading(self._pool, tenant) as lent:
            await lent.execute(
                "DELETE FROM brain.auth_codes WHERE tenant_id = $1 AND expires_at < now() - interval '1 hour'", tenant
            )
            await lent.execute(
                "INSERT INTO brain.auth_codes (tenant_id, hash, client_id, user_id, redirect_uri, challenge, scopes,"
                " session_id, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))"
                " ON CONFLICT DO NOTHING",
                tenant,
                token_hash(new.code),
                new.client_id,
                new.user_id,
                new.redirect_uri,
                new.challenge,
                new.scopes,
                new.session_id,
                CODE_S,
            )

    async def redeem(
        self, client: OAuthClient, code: str, redirect_uri: str, challenge: str, refresh: str
    ) -> Session | None:
        """Open the session of a code, once; a code that comes again ends that session. `refresh`: its first token."""
        tenant = client.tenant_id
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT a.*, a.expires_at > clock_timestamp() AND u.status = 'active' AS counts FROM brain.auth_codes a"
                " JOIN brain.users u ON u.tenant_id = a.tenant_id AND u.id = a.user_id"
                " WHERE a.tenant_id = $1 AND a.hash = $2 AND a.client_id = $3 FOR UPDATE OF a",
                tenant,
                token_hash(code),
                client.id,
            )
            if row is None:
                return None
            if row["used_at"] is not None:
                await end_session(lent, tenant, row["session_id"], self._lifetime)
                return None
            await lent.execute(
                "UPDATE brain.auth_codes SET used_at = clock_timestamp() WHERE tenant_id = $1 AND hash = $2",
                tenant,
                row["hash"],
            )
            if not row["counts"] or (row["redirect_uri"], row["challenge"]) != (redirect_uri, challenge):
                return None
            scopes = None if row["scopes"] is None else tuple(row["scopes"])
            session = Session(row["session_id"], row["user_id"], client.id, scopes)
            await open_within(lent, tenant, session, token_hash(refresh), self._kept)
        return session

    async def _insert(self, lent: Connection, caller: Caller, new: NewClient) -> OAuthClient:
        row = await lent.fetchrow(
            "INSERT INTO brain.clients (tenant_id, id, name, secret_hash, redirect_uris, grants, role, scopes,"
            f" created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
            caller.tenant,
            new.id,
            new.name,
            None if new.secret is None else _digest(new.secret, self._peppers[0]),
            new.redirect_uris,
            new.grants,
            new.role,
            new.scopes,
            caller.key_id,
        )
        if row is None:  # an earlier try of this request was committed after all
            row = await _row(lent, caller.tenant, new.id)
        else:
            await record(lent, caller, "client.create", new.id, {"role": new.role, "grants": new.grants})
        return OAuthClient.model_validate(dict(row))


def token_hash(token: str) -> bytes:
    """What is kept of a refresh token or a code: SHA-256, which is enough for 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def _digest(secret: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, secret.encode(), "sha256")


async def _row(lent: Connection, tenant: str, client_id: str) -> Any:
    return await lent.fetchrow(
        f"SELECT {_COLUMNS} FROM brain.clients WHERE tenant_id = $1 AND id = $2", tenant, client_id
    )


async def _check_within(lent: Connection, caller: Caller, new: NewClient) -> None:
    custom: Sequence[str] | None = await lent.fetchval(
        "SELECT permissions FROM brain.roles WHERE tenant_id = $1 AND name = $2", caller.tenant, new.role
    )
    if custom is None and new.role not in GIVEN:
        raise UnknownPermission(f"there is no role {new.role[:64]!r}")
    if not permissions_of(new.role, custom, new.scopes) <= caller.permissions:
        raise Wider(f"a client of the role {new.role} may do more than you may: give it fewer scopes")
