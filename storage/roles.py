"""Roles that tenants define for themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import asyncpg

from domain.errors import BrainError, NameTaken, NotFound
from domain.granting import check_given, check_role
from domain.permissions import OPERATOR, ROLES, Permission, checked, permissions_of
from domain.roles import BUILT_IN, MOST_ROLES, Role
from domain.tenant import Caller
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again

_COLUMNS = "name, description, permissions, created_at, updated_at"


class UnknownRole(BrainError):
    """There is no such role."""

    status = 422
    type = "invalid_request_error"
    code = "unknown_role"
    param = "role"


class BuiltIn(BrainError):
    """Every tenant has this role, and nobody changes it."""

    status = 409
    type = "conflict_error"
    code = "built_in"


class RoleInUse(BrainError):
    """Keys or users have this role: give them another one first."""

    status = 409
    type = "conflict_error"
    code = "role_in_use"


class TooManyRoles(BrainError):
    """A tenant has no room for more roles of its own."""

    status = 409
    type = "conflict_error"
    code = "too_many_roles"


@dataclass(frozen=True, slots=True)
class NewRole:
    """What is asked for; `key` and `body_hash` as of `NewConversation`."""

    name: str
    description: str
    permissions: Iterable[str]
    key: str | None = None
    body_hash: bytes = b""


async def held_by_role(
    connection: Connection, tenant: str, role: str, scopes: Iterable[str] | None = None
) -> frozenset[Permission]:
    """What a role that is to be given may do, narrowed to `scopes`; a role of the tenant's own stays until the end of
    the transaction. Raises `Wider` for the operator's role, `UnknownRole`, `UnknownPermission`."""
    check_role(role)
    if scopes is not None:
        checked(scopes)
    custom: list[str] | None = None
    if role not in ROLES:
        custom = await connection.fetchval(
            "SELECT permissions FROM brain.roles WHERE tenant_id = $1 AND name = $2 FOR SHARE", tenant, role
        )
        if custom is None:
            raise UnknownRole(f"role: there is no role {role[:64]!r}")
    return permissions_of(role, custom, scopes)


class PostgresRoles:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such role. What is given is no wider
    than what the caller may do (`Wider`), and made of permissions that there are (`UnknownPermission`)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[Role]:
        """All roles in the order of their names; `query.after` is a name."""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(f"SELECT {_COLUMNS} FROM brain.roles WHERE tenant_id = $1", tenant)
        roles = sorted((*BUILT_IN, *map(_role, rows)), key=lambda role: role.name, reverse=query.descending)
        if (after := query.after) is not None:
            roles = [role for role in roles if (role.name < after if query.descending else role.name > after)]
        return page_of(roles[: query.limit + 1], query)

    @again
    async def one(self, tenant: str, name: str) -> Role:
        for role in BUILT_IN:
            if role.name == name:
                return role
        async with reading(self._pool, tenant) as lent:
            return _found(
                await lent.fetchrow(
                    f"SELECT {_COLUMNS} FROM brain.roles WHERE tenant_id = $1 AND name = $2", tenant, name
                )
            )

    @again
    async def create(self, caller: Caller, new: NewRole) -> tuple[Role, bool]:
        """The role, and whether it was created by an earlier request. Raises `NameTaken`, `IdempotencyMismatch`."""
        permissions = _given(caller, new.permissions)
        if new.name in ROLES or new.name == OPERATOR:
            raise NameTaken(f"there is a role {new.name!r} already")
        try:
            async with reading(self._pool, caller.tenant) as lent:
                if new.key is not None:
                    first = await first_answer(lent, caller, new.key, new.body_hash)
                    if first is not None:
                        return Role.model_validate(first), True
                await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"roles {caller.tenant}")
                if await lent.fetchval("SELECT count(*) FROM brain.roles WHERE tenant_id = $1", caller.tenant) >= (
                    MOST_ROLES
                ):
                    raise TooManyRoles(f"a tenant has at most {MOST_ROLES} roles of its own")
                row = await lent.fetchrow(
                    "INSERT INTO brain.roles (tenant_id, name, description, permissions) VALUES ($1, $2, $3, $4)"
                    f" RETURNING {_COLUMNS}",
                    caller.tenant,
                    new.name,
                    new.description,
                    permissions,
                )
                made = _found(row)
                await record(lent, caller, "role.create", new.name, {"permissions": permissions})
                await _changed(lent, caller.tenant, new.name)
                if new.key is not None:
                    await remember(lent, caller, new.key, made.model_dump(mode="json"))
        except asyncpg.UniqueViolationError:
            raise NameTaken(f"there is a role {new.name!r} already") from None
        return made, False

    @again
    async def put(self, caller: Caller, new: NewRole) -> Role:
        """Replace what a role may do, for all who have it."""
        _check_own(new.name)
        permissions = _given(caller, new.permissions)
        async with reading(self._pool, caller.tenant) as lent:
            row = await lent.fetchrow(
                "UPDATE brain.roles SET description = $3, permissions = $4, updated_at = clock_timestamp()"
                f" WHERE tenant_id = $1 AND name = $2 RETURNING {_COLUMNS}",
                caller.tenant,
                new.name,
                new.description,
                permissions,
            )
            changed = _found(row)
            await record(lent, caller, "role.change", new.name, {"permissions": permissions})
            await _changed(lent, caller.tenant, new.name)
        return changed

    @again
    async def delete(self, caller: Caller, name: str) -> None:
        """Raises `RoleInUse`, `BuiltIn`."""
        _check_own(name)
        async with reading(self._pool, caller.tenant) as lent:
            _found(
                await lent.fetchrow(
                    f"SELECT {_COLUMNS} FROM brain.roles WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
                    caller.tenant,
                    name,
                )
            )
            used = await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.api_keys WHERE tenant_id = $1 AND role = $2 AND revoked_at IS NULL"
                " AND (expires_at IS NULL OR expires_at > clock_timestamp()))"
                " OR EXISTS (SELECT FROM brain.users WHERE tenant_id = $1 AND role = $2)",
                caller.tenant,
                name,
            )
            if used:
                raise RoleInUse
            await lent.execute("DELETE FROM brain.roles WHERE tenant_id = $1 AND name = $2", caller.tenant, name)
            await record(lent, caller, "role.delete", name)
            await _changed(lent, caller.tenant, name)


async def _changed(lent: Connection, tenant: str, name: str) -> None:
    await lent.execute("SELECT brain.access_changed($1, 'role', $2)", tenant, name)


def _given(caller: Caller, names: Iterable[str]) -> list[str]:
    permissions = checked(list(names))
    check_given(caller, permissions)
    return sorted(permissions)


def _check_own(name: str) -> None:
    if name in ROLES:
        raise BuiltIn


def _found(row: Any) -> Role:
    if row is None:
        raise NotFound("there is no such role")
    return _role(row)


def _role(row: Any) -> Role:
    return Role.model_validate({**dict(row), "built_in": False})
