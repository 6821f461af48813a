"""Trainings as jobs in Postgres: a trainer claims one, renews its lease while it works, and alone writes meanwhile."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from domain.errors import Fenced, NotFound, Overloaded
from domain.intents import Claim, Training, TrainingRequest
from domain.tenant import Caller
from domain.understanding import Example
from storage.idempotency import first_answer, remember
from storage.postgres import Connection, Pool, call, reading
from storage.retry import again

MOST_QUEUED = 4  # of a tenant
ATTEMPTS = 5  # trainers that may die over one job
KEPT = 100  # ended trainings of a tenant
_COLUMNS = "id, status, progress, phase, version, metrics, error, created_at, started_at, completed_at"
_OWNED = "tenant_id = $1 AND id = $2 AND claimed_by = $3 AND attempt = $4 AND status = 'running'"


@dataclass(frozen=True, slots=True)
class NewTraining:
    """What is asked for. `id` is made once per request; `key` and `body_hash` as of `NewConversation`."""

    id: str
    request: TrainingRequest
    key: str | None = None
    body_hash: bytes = b""


class PostgresTrainings:
    """Every method may raise `Unavailable`. What a trainer writes raises `Fenced` where the job is not its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def submit(self, caller: Caller, new: NewTraining) -> tuple[Training, bool]:
        """The job, and whether it was made by an earlier request. Raises `IdempotencyMismatch`, and `Overloaded` where
        too many of the tenant's wait."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return await _training(lent, caller.tenant, first["id"]), first["id"] != new.id
            made = await _insert(lent, caller.tenant, new)
            if new.key is not None:
                await remember(lent, caller, new.key, {"id": made.id})
        return made, False

    @again
    async def one(self, tenant: str, training_id: str) -> Training:
        """Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            return await _training(lent, tenant, training_id)

    async def claim(self, trainer: uuid.UUID, lease: float) -> tuple[Claim, TrainingRequest] | None:
        """The next job for this trainer, which then has it for `lease` seconds; None where nothing waits."""
        sql = "SELECT * FROM brain.claim_intent_training($1, $2, $3)"
        row = await call(self._pool, sql, trainer, timedelta(seconds=lease), ATTEMPTS)
        if row["tenant_id"] is None:
            return None
        claim = Claim(row["tenant_id"], row["id"], trainer, row["attempt"])
        async with reading(self._pool, claim.tenant) as lent:
            stored = await lent.fetchval(f"SELECT request FROM brain.intent_trainings WHERE {_OWNED}", *_owner(claim))
        return None if stored is None else (claim, _request(stored))

    @again
    async def renew(self, claim: Claim, lease: float, progress: float, phase: str) -> None:
        """Keep the job for `lease` seconds more, and tell how far it is."""
        async with reading(self._pool, claim.tenant) as lent:
            await _owned(
                lent,
                claim,
                "leased_until = clock_timestamp() + $5, progress = greatest(progress, $6), phase = $7",
                timedelta(seconds=lease),
                progress,
                phase,
            )

    @again
    async def complete(self, claim: Claim, metrics: dict[str, Any]) -> None:
        async with reading(self._pool, claim.tenant) as lent:
            await _owned(
                lent,
                claim,
                "status = 'completed', progress = 1, phase = 'completed', completed_at = clock_timestamp(),"
                " request = NULL, metrics = $5",
                metrics,
            )

    @again
    async def fail(self, claim: Claim, error: dict[str, Any]) -> None:
        """`error` has the shape of an API error."""
        async with reading(self._pool, claim.tenant) as lent:
            await _owned(
                lent,
                claim,
                "status = 'failed', phase = 'failed', completed_at = clock_timestamp(), request = NULL, error = $5",
                error,
            )

    @again
    async def give_back(self, claim: Claim) -> None:
        """Let another trainer have the job at once; this was no attempt."""
        async with reading(self._pool, claim.tenant) as lent:
            await _owned(lent, claim, "leased_until = clock_timestamp() - interval '1 s', attempt = attempt - 1")

    async def another_waits(self, claim: Claim) -> bool:
        """Whether another training of the claim's tenant waits for the end of this one."""
        async with reading(self._pool, claim.tenant) as lent:
            found: bool = await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.intent_trainings WHERE tenant_id = $1 AND status = 'queued')",
                claim.tenant,
            )
        return found


async def check_owned(lent: Connection, claim: Claim) -> None:
    """Hold the job's row until the end of the transaction. Raises `Fenced`."""
    await _owned(lent, claim, "attempt = attempt")


async def _owned(lent: Connection, claim: Claim, changes: str, *values: Any) -> None:
    found = await lent.fetchval(
        f"UPDATE brain.intent_trainings SET {changes} WHERE {_OWNED} RETURNING 1", *_owner(claim), *values
    )
    if found is None:
        raise Fenced("another trainer has this training now")


async def _insert(lent: Connection, tenant: str, new: NewTraining) -> Training:
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"trainings {tenant}")
    row = await lent.fetchrow(
        "INSERT INTO brain.intent_trainings (tenant_id, id, request) SELECT $1, $2, $3"
        " WHERE (SELECT count(*) FROM brain.intent_trainings WHERE tenant_id = $1 AND status = 'queued' AND id <> $2)"
        f" < $4 ON CONFLICT (tenant_id, id) DO NOTHING RETURNING {_COLUMNS}",
        tenant,
        new.id,
        _stored(new.request),
        MOST_QUEUED,
    )
    if row is None:  # an earlier try of this request was committed after all, or there is no room
        try:
            return await _training(lent, tenant, new.id)
        except NotFound:
            raise Overloaded(f"{MOST_QUEUED} trainings wait already") from None
    await lent.execute(
        "DELETE FROM brain.intent_trainings WHERE tenant_id = $1 AND id IN (SELECT id FROM brain.intent_trainings"
        " WHERE tenant_id = $1 AND status IN ('completed', 'failed') ORDER BY id DESC OFFSET $2)",
        tenant,
        KEPT,
    )
    return Training.model_validate(dict(row))


async def _training(lent: Connection, tenant: str, training_id: str) -> Training:
    row = await lent.fetchrow(
        f"SELECT {_COLUMNS} FROM brain.intent_trainings WHERE tenant_id = $1 AND id = $2", tenant, training_id
    )
    if row is None:
        raise NotFound("there is no such training")
    return Training.model_validate(dict(row))


def _owner(claim: Claim) -> tuple[Any, ...]:
    return claim.tenant, claim.id, claim.trainer, claim.attempt


def _stored(request: TrainingRequest) -> dict[str, Any]:
    return {
        "examples": [[one.text, one.intent] for one in request.examples],
        "validation": [[one.text, one.intent] for one in request.validation],
        "definitions": {name: dict(one) for name, one in request.definitions.items()},
        "effort": request.effort,
    }


def _request(stored: dict[str, Any]) -> TrainingRequest:
    examples, validation = (tuple(Example(*one) for one in stored[name]) for name in ("examples", "validation"))
    return TrainingRequest(examples, validation, stored["definitions"], stored["effort"])
