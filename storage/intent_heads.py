"""Trained heads as versions: made by trainings, read by the classifier's replicas, rolled back by administrators."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.intents import Claim, Effort, NewHead
from storage.intent_trainings import check_owned
from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again

KEPT = 20  # versions of a tenant; the active one always
_DETAILS = "version, embedder, metrics, training_id, effort, active, activated_at, created_at"


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head that a replica may use, and what was defined of its intents when it was trained."""

    version: int
    embedder: str
    artefact: bytes
    definitions: dict[str, Any]


@dataclass(frozen=True, slots=True)
class HeadVersion:
    """A version as administrators see it."""

    version: int
    embedder: str
    metrics: dict[str, Any]
    training_id: str
    effort: Effort
    active: bool
    activated_at: datetime | None
    created_at: datetime


class PostgresHeads:
    """Every method may raise `Unavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def store(self, claim: Claim, new: NewHead) -> int:
        """Keep the head of a training, and make it active; gives its version. Raises `Fenced` for a lost claim.

        A training makes one head of each effort: where it has made this one, that version is given, and nothing is
        changed. The best one takes the place of the first, and of no other: whoever rolled back meanwhile meant it.
        """
        async with reading(self._pool, claim.tenant) as lent:
            await check_owned(lent, claim)
            await _lock(lent, claim.tenant)
            found = await _of_training(lent, claim, new.effort)
            if found is not None:
                return found
            version: int = await lent.fetchval(
                "INSERT INTO brain.intent_heads (tenant_id, version, embedder, artefact, definitions, metrics,"
                " fingerprint, training_id, effort)"
                " SELECT $1, 1 + coalesce(max(version), 0), $2, $3, $4, $5, $6, $7, $8"
                " FROM brain.intent_heads WHERE tenant_id = $1 RETURNING version",
                claim.tenant,
                new.embedder,
                new.artefact,
                new.definitions,
                new.metrics,
                new.fingerprint,
                claim.id,
                new.effort,
            )
            if await _may_replace(lent, claim, new.effort):
                await _activate(lent, claim.tenant, version)
            await lent.execute(
                "UPDATE brain.intent_trainings SET version = $3 WHERE tenant_id = $1 AND id = $2",
                claim.tenant,
                claim.id,
                version,
            )
            await lent.execute(
                "DELETE FROM brain.intent_heads WHERE tenant_id = $1 AND NOT active AND version IN ("
                "SELECT version FROM brain.intent_heads WHERE tenant_id = $1 ORDER BY version DESC OFFSET $2)",
                claim.tenant,
                KEPT,
            )
        return version

    @again
    async def describe(self, claim: Claim, effort: Effort, metrics: dict[str, Any]) -> None:
        """Add to what is known of a training's head. Raises `Fenced` for a lost claim."""
        async with reading(self._pool, claim.tenant) as lent:
            await check_owned(lent, claim)
            await lent.execute(
                "UPDATE brain.intent_heads SET metrics = metrics || $4::jsonb"
                " WHERE tenant_id = $1 AND training_id = $2 AND effort = $3",
                claim.tenant,
                claim.id,
                effort,
                metrics,
            )

    @again
    async def of_training(self, claim: Claim, effort: Effort) -> StoredHead | None:
        """The head of this effort that the training has made already."""
        async with reading(self._pool, claim.tenant) as lent:
            row = await lent.fetchrow(
                "SELECT version, embedder, artefact, definitions FROM brain.intent_heads"
                " WHERE tenant_id = $1 AND training_id = $2 AND effort = $3",
                claim.tenant,
                claim.id,
                effort,
            )
        return None if row is None else StoredHead(**row)

    async def usable(self, tenant: str, embedder: str) -> tuple[StoredHead | None, HeadVersion | None]:
        """The head to use where this embedder runs, and the active version.

        They differ where the active one was trained with another embedder: then the newest one of this embedder is
        used, if there is one. Without an active version none is used.
        """
        async with reading(self._pool, tenant) as lent:
            active = await lent.fetchrow(
                f"SELECT {_DETAILS} FROM brain.intent_heads WHERE tenant_id = $1 AND active", tenant
            )
            if active is None:
                return None, None
            row = await lent.fetchrow(
                "SELECT version, embedder, artefact, definitions FROM brain.intent_heads"
                " WHERE tenant_id = $1 AND embedder = $2 ORDER BY active DESC, version DESC LIMIT 1",
                tenant,
                embedder,
            )
        return None if row is None else StoredHead(**row), HeadVersion(**active)

    async def active_versions(self, tenants: list[str]) -> dict[str, tuple[int, datetime]]:
        """Which version of each of these tenants is active, and since when; none of those that have none."""
        async with asking(self._pool) as lent:
            found = await lent.fetch("SELECT * FROM brain.active_intent_heads($1)", tenants)
        return {row["tenant_id"]: (row["version"], row["activated_at"]) for row in found}

    @again
    async def versions(self, tenant: str) -> list[HeadVersion]:
        """All that are kept, the newest first."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {_DETAILS} FROM brain.intent_heads WHERE tenant_id = $1 ORDER BY version DESC", tenant
            )
        return [HeadVersion(**row) for row in found]

    @again
    async def activate(self, tenant: str, version: int) -> bool:
        """Make a version active, or with 0 the shared set; False where there is no such version."""
        async with reading(self._pool, tenant) as lent:
            await _lock(lent, tenant)
            exists = await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.intent_heads WHERE tenant_id = $1 AND version = $2)", tenant, version
            )
            if version and not exists:
                return False
            await _activate(lent, tenant, version)
        return True


async def _lock(lent: Connection, tenant: str) -> None:
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"heads {tenant}")


async def _of_training(lent: Connection, claim: Claim, effort: Effort) -> int | None:
    found: int | None = await lent.fetchval(
        "SELECT version FROM brain.intent_heads WHERE tenant_id = $1 AND training_id = $2 AND effort = $3",
        claim.tenant,
        claim.id,
        effort,
    )
    return found


async def _may_replace(lent: Connection, claim: Claim, effort: Effort) -> bool:
    first = await _of_training(lent, claim, "first")
    if effort == "first" or first is None:
        return True
    active = await lent.fetchval("SELECT version FROM brain.intent_heads WHERE tenant_id = $1 AND active", claim.tenant)
    return bool(active == first)


async def _activate(lent: Connection, tenant: str, version: int) -> None:
    await lent.execute(
        "UPDATE brain.intent_heads SET active = false WHERE tenant_id = $1 AND active AND version <> $2",
        tenant,
        version,
    )
    await lent.execute(
        "UPDATE brain.intent_heads SET active = true, activated_at = clock_timestamp()"
        " WHERE tenant_id = $1 AND version = $2",
        tenant,
        version,
    )
