"""Users of a tenant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from domain.errors import NameTaken, NotFound
from domain.permissions import GIVEN, Permission, UnknownPermission, Wider, permissions_of
from domain.tenant import Caller
from domain.user import User, UserStatus, email_key
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.quotas import check_users
from storage.retry import again
from storage.sessions import end_session, end_sessions

_COLUMNS = "id, tenant_id, email, name, role, status, preferences, metadata, created_at, updated_at, last_active_at"
_TAKEN = "there is a user with this e-mail address already"


@dataclass(frozen=True, slots=True)
class NewUser:
    """What is asked for. `id` is made once per request; `key` and `body_hash` as of `NewConversation`."""

    id: str
    email: str
    role: str
    name: str | None = None
    password_hash: str | None = field(default=None, repr=False)
    status: UserStatus = "active"
    preferences: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    body_hash: bytes = b""


class PostgresUsers:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such user; `NameTaken`; `Wider` where a
    user would get, or has, a role that may do more than the caller. `lifetime`: seconds that an access token lives."""

    def __init__(self, pool: Pool, lifetime: float) -> None:
        self._pool, self._lifetime = pool, lifetime

    @again
    async def create(self, caller: Caller, new: NewUser, action: str = "user.create") -> tuple[User, bool]:
        """The user, and whether an earlier request made it. Raises `IdempotencyMismatch`, and `UnknownPermission`
        where there is no such role."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return User.model_validate(first), first["id"] != new.id
            if action == "user.create":
                await _check_within(lent, caller, new.role, exists=True)
            made = await _insert(lent, caller, new, action)
            if new.key is not None:
                await remember(lent, caller, new.key, made.model_dump(mode="json"))
        return made, False

    @again
    async def one(self, tenant: str, user_id: str) -> User:
        async with reading(self._pool, tenant) as lent:
            return await _one(lent, tenant, user_id)

    @again
    async def password(self, tenant: str, email: str) -> tuple[User, str | None] | None:
        """The user of an e-mail address with the hash of its password; None where there is none."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {_COLUMNS}, password_hash FROM brain.users WHERE tenant_id = $1 AND email_key = $2",
                tenant,
                email_key(email),
            )
        return None if row is None else (_user(row), row["password_hash"])

    @again
    async def page(
        self, tenant: str, query: PageQuery, role: str | None = None, status: UserStatus | None = None
    ) -> Page[User]:
        """Users in the order of their ids, which is that of their creation."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        conditions, args = ["tenant_id = $1"], [tenant, query.limit + 1]
        for value, test in ((query.after, f"id {compare}"), (role, "role ="), (status, "status =")):
            if value is not None:
                args.append(value)
                conditions.append(f"{test} ${len(args)}")
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.users WHERE {' AND '.join(conditions)} ORDER BY id {direction} LIMIT $2",
                *args,
            )
        return page_of([_user(row) for row in found], query)

    @again
    async def change(self, caller: Caller, user_id: str, fields: Mapping[str, Any]) -> tuple[User, list[str]]:
        """Set `fields`, columns of a user by name; the user, and what sessions ended. Who is disabled is signed out."""
        ended: list[str] = []
        async with reading(self._pool, caller.tenant) as lent:
            before = await _one(lent, caller.tenant, user_id, lock=True)
            if user_id != caller.user or "role" in fields:
                await _check_within(lent, caller, before.role)
            if "role" in fields:
                await _check_within(lent, caller, fields["role"], exists=True)
            columns = dict(fields)
            if "email" in fields:
                columns["email_key"] = email_key(fields["email"])
            sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 3))
            try:
                async with lent.transaction():
                    row = await lent.fetchrow(
                        f"UPDATE brain.users SET {sets}, updated_at = clock_timestamp()"
                        f" WHERE tenant_id = $1 AND id = $2 RETURNING {_COLUMNS}",
                        caller.tenant,
                        user_id,
                        *columns.values(),
                    )
            except asyncpg.UniqueViolationError:
                raise NameTaken(_TAKEN) from None
            after = _user(row)
            if (after.role, after.status) != (before.role, before.status):
                await lent.execute("SELECT brain.access_changed($1, 'user', $2)", caller.tenant, user_id)
            if after.status == "disabled" != before.status:
                ended = await end_sessions(lent, caller.tenant, user_id, self._lifetime)
            told = {name: fields[name] for name in ("role", "status") if name in fields}
            await record(lent, caller, "user.update", user_id, {"fields": sorted(fields), **told})
        return after, ended

    async def set_password(self, caller: Caller, user_id: str, hashed: str, but: str | None = None) -> list[str]:
        """Replace a password; sessions end but `but`. Gives those that ended."""
        async with reading(self._pool, caller.tenant) as lent:
            before = await _one(lent, caller.tenant, user_id, lock=True)
            if user_id != caller.user:
                await _check_within(lent, caller, before.role)
            await lent.execute(
                "UPDATE brain.users SET password_hash = $3, updated_at = clock_timestamp()"
                " WHERE tenant_id = $1 AND id = $2",
                caller.tenant,
                user_id,
                hashed,
            )
            ended = await end_sessions(lent, caller.tenant, user_id, self._lifetime, but)
            await record(lent, caller, "user.password", user_id)
        return ended

    @again
    async def sign_out(self, caller: Caller, user_id: str, session_id: str | None = None) -> list[str]:
        """End one sign-in, or all, with whatever access token was made before now. Gives the sessions that ended."""
        async with reading(self._pool, caller.tenant) as lent:
            before = await _one(lent, caller.tenant, user_id, lock=True)
            if user_id != caller.user:
                await _check_within(lent, caller, before.role)
            if session_id is None:
                await lent.execute(
                    "UPDATE brain.users SET tokens_from = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
                    caller.tenant,
                    user_id,
                )
                await lent.execute("SELECT brain.access_changed($1, 'user', $2)", caller.tenant, user_id)
                ended = await end_sessions(lent, caller.tenant, user_id, self._lifetime)
            else:
                known = "SELECT id FROM brain.sessions WHERE tenant_id = $1 AND user_id = $2 AND id = $3"
                if await lent.fetchval(known, caller.tenant, user_id, session_id) is None:
                    raise NotFound("this user has no such session")
                await end_session(lent, caller.tenant, session_id, self._lifetime)
                ended = [session_id]
            await record(lent, caller, "user.sign_out", user_id, {"session": session_id or "all"})
        return ended

    @again
    async def rehash(self, tenant: str, user_id: str, before: str, after: str) -> None:
        """The same password under newer parameters, unless it was replaced meanwhile."""
        async with reading(self._pool, tenant) as lent:
            await lent.execute(
                "UPDATE brain.users SET password_hash = $4 WHERE tenant_id = $1 AND id = $2 AND password_hash = $3",
                tenant,
                user_id,
                before,
                after,
            )

    @again
    async def close(self, caller: Caller, user_id: str) -> list[str]:
        """Disable a user that is about to be deleted: sessions and keys end. Gives the sessions."""
        async with reading(self._pool, caller.tenant) as lent:
            before = await _one(lent, caller.tenant, user_id, lock=True)
            if user_id != caller.user:
                await _check_within(lent, caller, before.role)
            await lent.execute(
                "UPDATE brain.users SET status = 'disabled' WHERE tenant_id = $1 AND id = $2", caller.tenant, user_id
            )
            keys = "SELECT id FROM brain.api_keys WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL"
            for row in await lent.fetch(keys, caller.tenant, user_id):
                await lent.execute("SELECT brain.end_key($1, $2, NULL)", caller.tenant, row["id"])
            await lent.execute("SELECT brain.access_changed($1, 'user', $2)", caller.tenant, user_id)
            return await end_sessions(lent, caller.tenant, user_id, self._lifetime)

    @again
    async def delete(self, caller: Caller, user_id: str, detail: Mapping[str, Any]) -> None:
        """Remove a user that is closed; what is there already is no error of a second try."""
        async with reading(self._pool, caller.tenant) as lent:
            gone = await lent.fetchval(
                "DELETE FROM brain.users WHERE tenant_id = $1 AND id = $2 RETURNING id", caller.tenant, user_id
            )
            if gone is not None:
                await lent.execute("SELECT brain.access_changed($1, 'user', $2)", caller.tenant, user_id)
                await record(lent, caller, "user.delete", user_id, detail)

    @again
    async def seen(self, tenant: str, users: Mapping[str, datetime]) -> None:
        """When these users were last active, where what is kept is older than half a minute."""
        async with reading(self._pool, tenant) as lent:
            await lent.execute(
                "UPDATE brain.users u SET last_active_at = s.at"
                " FROM unnest($2::text[], $3::timestamptz[]) AS s (id, at) WHERE u.tenant_id = $1 AND u.id = s.id"
                " AND (u.last_active_at IS NULL OR u.last_active_at < s.at - interval '30 seconds')",
                tenant,
                list(users),
                list(users.values()),
            )

    @again
    async def check_role(self, caller: Caller, role: str) -> None:
        """Raises `Wider` and `UnknownPermission`, see `create`."""
        async with reading(self._pool, caller.tenant) as lent:
            await _check_within(lent, caller, role, exists=True)


async def _check_within(lent: Connection, caller: Caller, role: str, exists: bool = False) -> None:
    custom = await lent.fetchval(
        "SELECT permissions FROM brain.roles WHERE tenant_id = $1 AND name = $2 FOR SHARE", caller.tenant, role
    )
    if exists and custom is None and role not in GIVEN:
        raise UnknownPermission(f"there is no role {role[:64]!r}")
    held: frozenset[Permission] = permissions_of(role, custom)
    if not held <= caller.permissions:
        raise Wider(f"the role {role} may do more than you may: ask an administrator")


async def _insert(lent: Connection, caller: Caller, new: NewUser, action: str) -> User:
    await check_users(lent, caller.tenant)
    row = await lent.fetchrow(
        "INSERT INTO brain.users (tenant_id, id, email, email_key, name, password_hash, role, status, preferences,"
        " metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        f" ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
        caller.tenant,
        new.id,
        new.email,
        email_key(new.email),
        new.name,
        new.password_hash,
        new.role,
        new.status,
        dict(new.preferences),
        dict(new.metadata),
    )
    if row is not None:
        await record(lent, caller, action, new.id, {"role": new.role})
        return _user(row)
    row = await lent.fetchrow(  # an earlier try of this request was committed after all, or the address is another's
        f"SELECT {_COLUMNS} FROM brain.users WHERE tenant_id = $1 AND id = $2", caller.tenant, new.id
    )
    if row is None:
        raise NameTaken(_TAKEN)
    return _user(row)


async def _one(lent: Connection, tenant: str, user_id: str, lock: bool = False) -> User:
    row = await lent.fetchrow(
        f"SELECT {_COLUMNS} FROM brain.users WHERE tenant_id = $1 AND id = $2{' FOR UPDATE' if lock else ''}",
        tenant,
        user_id,
    )
    if row is None:
        raise NotFound("there is no such user")
    return _user(row)


def _user(row: Any) -> User:
    return User.model_validate({name: row[name] for name in _COLUMNS.split(", ")})
