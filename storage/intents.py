"""Intents that tenants define."""

from dataclasses import dataclass
from typing import Any

import asyncpg

from domain.errors import BrainError, NameTaken, NotFound
from domain.intents import MOST_EXAMPLES, DefinedIntent
from domain.tenant import Caller
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again

MOST = 1000  # intents of a tenant
_COLUMNS = "id, name, description, examples, slots, needs_products, created_at, updated_at"


class TooManyIntents(BrainError):
    """A tenant has no room for more intents or examples."""

    status = 409
    type = "conflict_error"
    code = "too_many_intents"


@dataclass(frozen=True, slots=True)
class NewIntent:
    """What is asked for. `id` is made once per request; `key` and `body_hash` as of `NewConversation`."""

    id: str
    name: str
    description: str
    examples: list[str]
    slots: list[dict[str, Any]]
    needs_products: bool
    key: str | None = None
    body_hash: bytes = b""


class PostgresIntents:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such intent; `NameTaken`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def create(self, caller: Caller, new: NewIntent) -> tuple[DefinedIntent, bool]:
        """The intent, and whether it was created by an earlier request. Raises `IdempotencyMismatch`."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return DefinedIntent.model_validate(first), first["id"] != new.id
            made = await _insert(lent, caller.tenant, new)
            if new.key is not None:
                await remember(lent, caller, new.key, made.model_dump(mode="json"))
        return made, False

    @again
    async def one(self, tenant: str, intent_id: str) -> DefinedIntent:
        async with reading(self._pool, tenant) as lent:
            return _found(
                await lent.fetchrow(
                    f"SELECT {_COLUMNS} FROM brain.intents WHERE tenant_id = $1 AND id = $2", tenant, intent_id
                )
            )

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[DefinedIntent]:
        """Intents in the order of their ids, which is that of their creation."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        args: list[Any] = [tenant, query.limit + 1]
        beyond = ""
        if query.after is not None:
            args.append(query.after)
            beyond = f" AND id {compare} $3"
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.intents WHERE tenant_id = $1{beyond} ORDER BY id {direction} LIMIT $2",
                *args,
            )
        return page_of([_intent(row) for row in found], query)

    @again
    async def all(self, tenant: str) -> list[DefinedIntent]:
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(f"SELECT {_COLUMNS} FROM brain.intents WHERE tenant_id = $1 ORDER BY id", tenant)
        return [_intent(row) for row in found]

    @again
    async def put(self, tenant: str, intent_id: str, new: NewIntent) -> DefinedIntent:
        """Replace what is said of an intent."""
        try:
            async with reading(self._pool, tenant) as lent:
                await _check_room(lent, tenant, new, intent_id)
                row = await lent.fetchrow(
                    "UPDATE brain.intents SET name = $3, description = $4, examples = $5, slots = $6,"
                    " needs_products = $7, updated_at = clock_timestamp()"
                    f" WHERE tenant_id = $1 AND id = $2 RETURNING {_COLUMNS}",
                    tenant,
                    intent_id,
                    *_values(new),
                )
        except asyncpg.UniqueViolationError:
            raise _taken(new.name) from None
        return _found(row)

    @again
    async def delete(self, tenant: str, intent_id: str) -> None:
        """Remove an intent; heads that know it stay."""
        async with reading(self._pool, tenant) as lent:
            _found(
                await lent.fetchrow(
                    f"DELETE FROM brain.intents WHERE tenant_id = $1 AND id = $2 RETURNING {_COLUMNS}",
                    tenant,
                    intent_id,
                )
            )


async def _insert(lent: Connection, tenant: str, new: NewIntent) -> DefinedIntent:
    await _check_room(lent, tenant, new)
    row = await lent.fetchrow(
        "INSERT INTO brain.intents (tenant_id, id, name, description, examples, slots, needs_products)"
        f" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
        tenant,
        new.id,
        *_values(new),
    )
    if row is None:  # an earlier try of this request was committed after all, or the name is another's
        row = await lent.fetchrow(
            f"SELECT {_COLUMNS} FROM brain.intents WHERE tenant_id = $1 AND id = $2", tenant, new.id
        )
    if row is None:
        raise _taken(new.name)
    return _intent(row)


async def _check_room(lent: Connection, tenant: str, new: NewIntent, but: str = "") -> None:
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"intents {tenant}")
    row = await lent.fetchrow(
        "SELECT count(*) AS intents, coalesce(sum(jsonb_array_length(examples)), 0) AS examples FROM brain.intents"
        " WHERE tenant_id = $1 AND id <> $2",
        tenant,
        but,
    )
    assert row is not None
    if row["intents"] >= MOST:
        raise TooManyIntents(f"a tenant has at most {MOST} intents")
    if row["examples"] + len(new.examples) > MOST_EXAMPLES:
        raise TooManyIntents(f"a tenant's intents have at most {MOST_EXAMPLES} examples")


def _values(new: NewIntent) -> tuple[Any, ...]:
    return new.name, new.description, new.examples, new.slots, new.needs_products


def _found(row: Any) -> DefinedIntent:
    if row is None:
        raise NotFound("there is no such intent")
    return _intent(row)


def _intent(row: Any) -> DefinedIntent:
    return DefinedIntent.model_validate(dict(row))


def _taken(name: str) -> NameTaken:
    return NameTaken(f"there is an intent {name!r} already")
