"""API keys: made, listed, ended, rotated. Only an HMAC of each is kept, and what a key is shown by."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from domain.errors import BrainError, NotFound
from domain.granting import check_key
from domain.ids import new_id
from domain.keys import ApiKey, MadeKey
from domain.tenant import Caller
from storage.access import API_KEYS, key_hash, shown
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, asking, reading
from storage.quotas import ACTIVE_KEYS, check_keys
from storage.retry import again
from storage.roles import held_by_role
from storage.sealing import MasterKeys

_COLUMNS = (
    "tenant_id, id, name, prefix, role, scopes, user_id, created_by, created_at, expires_at, last_used_at, revoked_at,"
    " replaced_by"
)


class KeyEnded(BrainError):
    """This key has ended, or another one has taken its place already."""

    status = 409
    type = "conflict_error"
    code = "key_ended"


class UnknownUser(BrainError):
    """There is no such user."""

    status = 422
    type = "invalid_request_error"
    code = "unknown_user"
    param = "user_id"


@dataclass(frozen=True, slots=True)
class Once:
    """The caller's idempotency key, where it sent one, and what it came with."""

    key: str | None = None
    body_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is asked for. `id` and `secret` are made once per request."""

    name: str
    role: str
    scopes: Sequence[str] | None = None
    user_id: str | None = None
    expires_at: datetime | None = None
    id: str = field(default_factory=lambda: new_id("key"))
    secret: str = field(default_factory=lambda: f"brain_{secrets.token_urlsafe(32)}", repr=False)


@dataclass(frozen=True, slots=True)
class Fresh:
    """The id and the secret of the key that takes another's place, made once per request."""

    id: str = field(default_factory=lambda: new_id("key"))
    secret: str = field(default_factory=lambda: f"brain_{secrets.token_urlsafe(32)}", repr=False)


class PostgresKeys:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such key. Callers act for
    `caller.tenant`. No key is wider than what its maker may do: `Wider`."""

    def __init__(self, pool: Pool, master: MasterKeys) -> None:
        self._pool, self._master = pool, master
        self._pepper = master.derived(API_KEYS)[0]

    @again
    async def create(self, caller: Caller, new: NewKey, once: Once = Once()) -> tuple[MadeKey, bool]:
        """The key, and whether it was made by an earlier request with this idempotency key.

        Raises `UnknownRole`, `UnknownPermission`, `UnknownUser`, `QuotaExceeded`, `IdempotencyMismatch`.
        """
        async with reading(self._pool, caller.tenant) as lent:
            if (first := await self._first(lent, caller, once)) is not None:
                return first[0], first[0].id != new.id
            await _alone(lent, caller.tenant)
            await check_keys(lent, caller.tenant)
            made = await self._insert(lent, caller, new)
            await record(lent, caller, "key.create", new.id, _told(made))
            await self._remember(lent, caller, once, [made])
        return made, False

    @again
    async def one(self, tenant: str, key_id: str) -> ApiKey:
        async with reading(self._pool, tenant) as lent:
            return _found(await _row(lent, tenant, key_id))

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[ApiKey]:
        """Keys in the order of their ids, which is that of their creation; also those that have ended."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.api_keys WHERE tenant_id = $1"
                f" AND ($2::text IS NULL OR id {compare} $2) ORDER BY id {direction} LIMIT $3",
                tenant,
                query.after,
                query.limit + 1,
            )
        return page_of([_key(row) for row in rows], query)

    @again
    async def revoke(self, caller: Caller, key_id: str) -> None:
        """End a key now. Revoking one that has ended changes nothing."""
        async with reading(self._pool, caller.tenant) as lent:
            await _alone(lent, caller.tenant)
            if not await lent.fetchval("SELECT brain.end_key($1, $2, NULL)", caller.tenant, key_id):
                raise NotFound("there is no such key, or it is the operator's own")
            await record(lent, caller, "key.revoke", key_id)

    @again
    async def rotate(self, caller: Caller, key_id: str, overlap: int, fresh: Fresh, once: Once) -> tuple[MadeKey, bool]:
        """A key in the place of another, which ends `overlap` seconds from now.

        It lives as long as the old one was to live. Raises `KeyEnded`, `Wider`, `IdempotencyMismatch`.
        """
        async with reading(self._pool, caller.tenant) as lent:
            if (first := await self._first(lent, caller, once)) is not None:
                return first[0], True
            await _alone(lent, caller.tenant)
            old = _found(await _row(lent, caller.tenant, key_id))
            if old.role == "operator":
                raise NotFound("there is no such key, or it is the operator's own")
            if old.replaced_by == fresh.id:  # an earlier try of this request was committed after all
                row = await _row(lent, caller.tenant, fresh.id)
                return MadeKey.model_validate({**dict(row), "key": fresh.secret}), False
            if old.status != "active" or old.replaced_by is not None:
                raise KeyEnded
            made = await self._replace(lent, caller, old, overlap, fresh)
            await self._remember(lent, caller, once, [made])
        return made, False

    @again
    async def rotate_all(self, caller: Caller, overlap: int, once: Once) -> tuple[list[MadeKey], bool]:
        """As `rotate`, of all keys that are active; those that were replaced before end no later than the others. Keys
        of users who are gone open nothing, and are left alone.

        Raises `Wider` where one of them is wider than what the caller may do: nothing has changed then."""
        async with reading(self._pool, caller.tenant) as lent:
            if (first := await self._first(lent, caller, once)) is not None:
                return first, True
            await _alone(lent, caller.tenant)
            rows = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.api_keys k WHERE tenant_id = $1 AND {ACTIVE_KEYS} AND (user_id IS NULL"
                " OR EXISTS (SELECT FROM brain.users u WHERE u.tenant_id = $1 AND u.id = k.user_id)) ORDER BY id",
                caller.tenant,
            )
            made = []
            for old in map(_key, rows):
                if old.replaced_by is None:
                    made.append(await self._replace(lent, caller, old, overlap, Fresh()))
                else:
                    await lent.fetchval("SELECT brain.end_key($1, $2, $3)", caller.tenant, old.id, _end(overlap))
            await self._remember(lent, caller, once, made)
        return made, False

    async def used(self, seen: Mapping[tuple[str, str], float]) -> None:
        """Keys that were used, by tenant and id, with the Unix time of their last use."""
        async with asking(self._pool) as lent:
            await lent.execute(
                "SELECT brain.keys_used($1, $2, $3)",
                [tenant for tenant, _ in seen],
                [key for _, key in seen],
                [datetime.fromtimestamp(at, UTC) for at in seen.values()],
            )

    async def _insert(self, lent: Connection, caller: Caller, new: NewKey) -> MadeKey:
        held = await held_by_role(lent, caller.tenant, new.role, new.scopes)
        check_key(caller, held, new.user_id)
        if new.user_id is not None and not await lent.fetchval(
            "SELECT EXISTS (SELECT FROM brain.users WHERE tenant_id = $1 AND id = $2)", caller.tenant, new.user_id
        ):
            raise UnknownUser("user_id: there is no such user")
        row = await _row(lent, caller.tenant, new.id)
        if row is None:  # else an earlier try of this request was committed after all
            await lent.execute(
                "SELECT brain.create_key($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                caller.tenant,
                new.id,
                new.name,
                key_hash(new.secret, self._pepper),
                shown(new.secret),
                new.role,
                None if new.scopes is None else list(new.scopes),
                new.user_id,
                caller.key_id,
                new.expires_at,
            )
            row = await _row(lent, caller.tenant, new.id)
        return MadeKey.model_validate({**dict(row), "key": new.secret})

    async def _replace(self, lent: Connection, caller: Caller, old: ApiKey, overlap: int, fresh: Fresh) -> MadeKey:
        life = None if old.expires_at is None else datetime.now(UTC) + (old.expires_at - old.created_at)
        new = NewKey(old.name, old.role, old.scopes, old.user_id, life, fresh.id, fresh.secret)
        made = await self._insert(lent, caller, new)
        await lent.fetchval("SELECT brain.replace_key($1, $2, $3, $4)", caller.tenant, old.id, made.id, _end(overlap))
        await record(lent, caller, "key.rotate", old.id, {"new": made.id, "overlap_seconds": overlap})
        return made

    async def _first(self, lent: Connection, caller: Caller, once: Once) -> list[MadeKey] | None:
        if once.key is None:
            return None
        sealed = await first_answer(lent, caller, once.key, once.body_hash)
        if sealed is None:
            return None
        return [
            MadeKey.model_validate(one) for one in orjson.loads(self._master.open(sealed, _place(caller, once.key)))
        ]

    async def _remember(self, lent: Connection, caller: Caller, once: Once, made: Sequence[MadeKey]) -> None:
        """The answer holds secrets: it is kept sealed, as long as idempotency keys are."""
        if once.key is not None:
            answer = orjson.dumps([one.model_dump(mode="json", exclude={"status"}) for one in made])
            await remember(lent, caller, once.key, self._master.seal(answer, _place(caller, once.key)))


async def _alone(lent: Connection, tenant: str) -> None:
    """One change of a tenant's keys at a time."""
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"keys {tenant}")


async def _row(lent: Connection, tenant: str, key_id: str) -> Any:
    return await lent.fetchrow(
        f"SELECT {_COLUMNS} FROM brain.api_keys WHERE tenant_id = $1 AND id = $2", tenant, key_id
    )


def _found(row: Any) -> ApiKey:
    if row is None:
        raise NotFound("there is no such key")
    return _key(row)


def _key(row: Any) -> ApiKey:
    return ApiKey.model_validate(dict(row))


def _told(made: ApiKey) -> dict[str, Any]:
    return made.model_dump(mode="json", include={"name", "prefix", "role", "scopes", "user_id", "expires_at"})


def _end(overlap: int) -> datetime | None:
    """None: now."""
    return datetime.now(UTC) + timedelta(seconds=overlap) if overlap else None


def _place(caller: Caller, key: str) -> str:
    return f"idempotency {caller.tenant} {caller.key_id} {key}"
