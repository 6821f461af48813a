"""Sign-ins: each is a family of refresh tokens, of which one counts at a time (RFC 9700, section 4.14)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again
from storage.revocations import revoke


@dataclass(frozen=True, slots=True)
class Session:
    """`client_id`: the OAuth client through which the user signed in. `scopes`: None: all that the role has."""

    id: str
    user_id: str
    client_id: str | None = None
    scopes: tuple[str, ...] | None = None


class OpenSession(BaseModel):
    """A sign-in that goes on. `client_id`, `client_name`: of the OAuth client through which; `last_used_at`: when its
    newest refresh token was made."""

    id: str
    object: Literal["session"] = "session"
    user_id: str
    client_id: str | None
    client_name: str | None
    scopes: list[str] | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Rotated:
    """`reused`: the token had been used before, so that the whole session ended."""

    outcome: Literal["rotated", "reused", "unknown"]
    session: Session | None = None


class PostgresSessions:
    """Every method may raise `Unavailable`. Times in seconds: `lifetime` of an access token, `kept` of a session at the
    most, `idle` of one that nobody prolongs."""

    def __init__(self, pool: Pool, lifetime: float, kept: float, idle: float) -> None:
        self._pool, self._lifetime, self.kept, self.idle = pool, lifetime, kept, idle

    async def open(self, tenant: str, session: Session, refresh: bytes) -> None:
        """`refresh`: the hash of its first refresh token."""
        async with reading(self._pool, tenant) as lent:
            await open_within(lent, tenant, session, refresh, self.kept)

    async def rotate(self, tenant: str, before: bytes, after: bytes, client_id: str | None = None) -> Rotated:
        """Put the refresh token of hash `after` into the place of `before`, which counts no more."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT s.id, s.user_id, s.client_id, s.scopes, r.used_at, s.revoked_at IS NULL AND u.status = 'active'"
                " AND t.status = 'active' AND s.expires_at > clock_timestamp()"
                " AND r.created_at > clock_timestamp() - make_interval(secs => $3) AS counts"
                " FROM brain.refresh_tokens r"
                " JOIN brain.sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id"
                " JOIN brain.users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id"
                " JOIN brain.tenants t ON t.id = s.tenant_id"
                " WHERE r.tenant_id = $1 AND r.hash = $2 FOR UPDATE OF r, s",
                tenant,
                before,
                float(self.idle),
            )
            if row is None or row["client_id"] != client_id:
                return Rotated("unknown")
            session = Session(row["id"], row["user_id"], row["client_id"], _tuple(row["scopes"]))
            if row["used_at"] is not None:
                await end_session(lent, tenant, session.id, self._lifetime)
                return Rotated("reused", session)
            if not row["counts"]:
                return Rotated("unknown")
            await lent.execute(
                "UPDATE brain.refresh_tokens SET used_at = clock_timestamp() WHERE tenant_id = $1 AND hash = $2",
                tenant,
                before,
            )
            await _put(lent, tenant, session.id, after)
        return Rotated("rotated", session)

    @again
    async def of_refresh(self, tenant: str, refresh: bytes) -> tuple[Session, bool] | None:
        """The session of a refresh token, and whether that token counts."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT s.id, s.user_id, s.client_id, s.scopes, r.used_at IS NULL AND s.revoked_at IS NULL"
                " AND s.expires_at > clock_timestamp() AND r.created_at > clock_timestamp() - make_interval(secs => $3)"
                " AS counts FROM brain.refresh_tokens r"
                " JOIN brain.sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id"
                " WHERE r.tenant_id = $1 AND r.hash = $2",
                tenant,
                refresh,
                float(self.idle),
            )
        if row is None:
            return None
        return Session(row["id"], row["user_id"], row["client_id"], _tuple(row["scopes"])), row["counts"]

    @again
    async def page(self, tenant: str, user_id: str, query: PageQuery) -> Page[OpenSession]:
        """What a user has open, in the order of its opening."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        args: list[Any] = [tenant, user_id, float(self.idle), query.limit + 1]
        beyond = ""
        if query.after is not None:
            args.append(query.after)
            beyond = f" AND s.id {compare} $5"
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT s.id, s.user_id, s.client_id, c.name AS client_name, s.scopes, s.created_at, r.last_used_at,"
                " s.expires_at FROM brain.sessions s JOIN LATERAL (SELECT max(t.created_at) AS last_used_at"
                " FROM brain.refresh_tokens t WHERE t.tenant_id = $1 AND t.session_id = s.id) r ON true"
                " LEFT JOIN brain.clients c ON c.tenant_id = s.tenant_id AND c.id = s.client_id"
                " WHERE s.tenant_id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL"
                " AND s.expires_at > clock_timestamp()"
                f" AND r.last_used_at > clock_timestamp() - make_interval(secs => $3){beyond}"
                f" ORDER BY s.id {direction} LIMIT $4",
                *args,
            )
        return page_of([OpenSession.model_validate(dict(row)) for row in rows], query)

    @again
    async def end(self, tenant: str, session_id: str | None, token: str | None = None, seconds: float = 0) -> None:
        """End a session, and an access token by its id; `seconds`: how long that would count still."""
        async with reading(self._pool, tenant) as lent:
            if session_id is not None:
                await end_session(lent, tenant, session_id, self._lifetime)
            if token is not None:
                await revoke(lent, tenant, [token], max(seconds, self._lifetime))


async def open_within(lent: Connection, tenant: str, session: Session, refresh: bytes, kept: float) -> None:
    await lent.execute(
        "INSERT INTO brain.sessions (tenant_id, id, user_id, client_id, scopes, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))",
        tenant,
        session.id,
        session.user_id,
        session.client_id,
        session.scopes,
        float(kept),
    )
    await _put(lent, tenant, session.id, refresh)


async def end_session(lent: Connection, tenant: str, session_id: str, lifetime: float) -> None:
    """Its refresh tokens count no more, nor its access tokens, everywhere."""
    await lent.execute(
        "UPDATE brain.sessions SET revoked_at = coalesce(revoked_at, clock_timestamp())"
        " WHERE tenant_id = $1 AND id = $2",
        tenant,
        session_id,
    )
    await revoke(lent, tenant, [session_id], lifetime)


async def end_sessions(
    lent: Connection, tenant: str, user_id: str, lifetime: float, but: str | None = None
) -> list[str]:
    """End what a user has open, but one; the sessions' ids."""
    rows = await lent.fetch(
        "UPDATE brain.sessions SET revoked_at = clock_timestamp() WHERE tenant_id = $1 AND user_id = $2"
        " AND revoked_at IS NULL AND id IS DISTINCT FROM $3 RETURNING id",
        tenant,
        user_id,
        but,
    )
    ended = [row["id"] for row in rows]
    await revoke(lent, tenant, ended, lifetime)
    return ended


async def _put(lent: Connection, tenant: str, session_id: str, refresh: bytes) -> None:
    await lent.execute(
        "INSERT INTO brain.refresh_tokens (tenant_id, session_id, hash) VALUES ($1, $2, $3)",
        tenant,
        session_id,
        refresh,
    )


def _tuple(scopes: list[str] | None) -> tuple[str, ...] | None:
    return None if scopes is None else tuple(scopes)
