"""Erasing in Postgres: jobs with what was counted, so that a crash in the middle loses neither work nor figures.

A conversation is counted before it is deleted, in a step of its job; what else tells of it (keys of idempotency,
events, the ledger's links) goes when the step ends, and its counts are added to the job's in that transaction.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from domain.errors import NotFound
from domain.ids import new_id
from domain.tenant import Caller
from storage.audit import record
from storage.postgres import Connection, Pool, call, reading
from storage.retry import again

PURPOSE = "erasures"  # among those of a master key
Kind = Literal["user", "tenant"]
Turns = list[tuple[str, int]]
LONGEST = 300.0  # seconds of one statement: a large tenant's ledger is read whole
JOB = "id, kind, requested_at, removed_at, completed_at, removed"

_COUNTS = """
SELECT c.id,
    (SELECT count(*) FROM brain.messages m WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id) AS messages,
    (SELECT count(*) FROM brain.feedback f JOIN brain.messages m ON m.tenant_id = f.tenant_id AND m.id = f.message_id
        WHERE f.tenant_id = c.tenant_id AND m.conversation_id = c.id) AS feedback,
    (SELECT count(*) FROM brain.summaries s WHERE s.tenant_id = c.tenant_id AND s.conversation_id = c.id) AS summaries,
    (SELECT coalesce(jsonb_agg(jsonb_build_array(t.id, t.attempt)), '[]') FROM brain.turns t
        WHERE t.tenant_id = c.tenant_id AND t.conversation_id = c.id) AS turns
    FROM brain.conversations c WHERE c.tenant_id = $1 AND ($2::text IS NULL OR c.user_id = $2)
        AND NOT EXISTS (SELECT FROM brain.erasure_steps s WHERE s.tenant_id = $1 AND s.erasure_id = $3
            AND s.conversation_id = c.id)
    ORDER BY c.id LIMIT $4
"""
_STEPS = """
SELECT s.conversation_id, s.turns, s.counts FROM brain.erasure_steps s WHERE s.tenant_id = $1 AND s.erasure_id = $2
    AND (s.erased_at IS NULL OR EXISTS (SELECT FROM brain.conversations c
        WHERE c.tenant_id = s.tenant_id AND c.id = s.conversation_id)) ORDER BY 1 LIMIT $3
"""
_NAMED = """
SELECT EXISTS (SELECT FROM brain.users WHERE tenant_id = $1 AND id = $2)
    OR EXISTS (SELECT FROM brain.conversations WHERE tenant_id = $1 AND user_id = $2)
    OR EXISTS (SELECT FROM brain.usage WHERE tenant_id = $1 AND user_id = $2)
"""
_OF_TENANT = (  # what goes with the tenant's row, or is no conversation's, by the name that receipts give it
    ("users", "users"),
    ("sessions", "sessions"),
    ("api_keys", "api_keys"),
    ("roles", "roles"),
    ("intents", "intents"),
    ("intent_trainings", "intent_trainings"),
    ("intent_heads", "intent_heads"),
    ("complexity_scorers", "complexity_scorers"),
    ("products", "products"),
    ("idempotency_keys", "idempotency"),
    ("reservations", "reservations"),
    ("catalogue_sources", "catalogue_sources"),
    ("tool_servers", "tool_servers"),
    ("tool_consents", "tool_consents"),
    ("webhooks", "webhooks"),
    ("channels", "channels"),
    ("deliveries", "deliveries"),
    ("channel_messages", "channel_messages"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """`removed`: counts so far. `removed_at`: when nothing was left in Postgres; `completed_at`: nor among vectors."""

    id: str
    kind: Kind
    requested_at: datetime
    removed_at: datetime | None
    completed_at: datetime | None
    removed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """A conversation to delete. `counts`: what it held, `vectors` only once they were counted."""

    conversation: str
    turns: Turns
    counts: Mapping[str, int]


class PostgresErasure:
    """`digest_keys`: of the present master key, then of those before it. Methods raise `Unavailable`, and may be
    repeated."""

    def __init__(self, pool: Pool, digest_keys: tuple[bytes, ...]) -> None:
        self._pool, self._digest_keys = pool, digest_keys

    @again
    async def begin(self, tenant: str, kind: Kind, subject: str) -> Job:
        """The job that is not done yet, or a new one; the last one where nothing is there any more that could be
        erased. Raises `NotFound` where there never was."""
        digests = [_digest(key, tenant, kind, subject) for key in self._digest_keys]
        async with reading(self._pool, tenant) as lent:
            last = await lent.fetchrow(
                f"SELECT {JOB} FROM brain.erasures WHERE tenant_id = $1 AND kind = $2 AND subject = ANY ($3)"
                " ORDER BY completed_at IS NULL DESC, requested_at DESC LIMIT 1",
                tenant,
                kind,
                digests,
            )
            if last is not None and last["completed_at"] is None:
                return Job(**last)
            if not await self._is_there(lent, tenant, kind, subject):
                if last is None:
                    raise NotFound(f"there is no such {kind}")
                return Job(**last)
            await lent.execute(
                "INSERT INTO brain.erasures (tenant_id, id, kind, subject) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (tenant_id, kind, subject) WHERE completed_at IS NULL DO NOTHING",
                tenant,
                new_id("rcpt"),
                kind,
                digests[0],
            )
            made = await lent.fetchrow(
                f"SELECT {JOB} FROM brain.erasures WHERE tenant_id = $1 AND kind = $2 AND subject = $3"
                " AND completed_at IS NULL",
                tenant,
                kind,
                digests[0],
            )
        assert made is not None
        return Job(**made)

    @again
    async def job(self, tenant: str, job: str) -> Job:
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(f"SELECT {JOB} FROM brain.erasures WHERE tenant_id = $1 AND id = $2", tenant, job)
        if row is None:
            raise NotFound("there is no such erasure")
        return Job(**row)

    @again
    async def steps(self, tenant: str, job: str, user: str | None, limit: int) -> list[Step]:
        """Conversations to delete next, counted: those that a crash left behind come first. `user` None: all users'."""
        async with reading(self._pool, tenant) as lent:
            left = await lent.fetch(_STEPS, tenant, job, limit)
            if not left:
                for row in await lent.fetch(_COUNTS, tenant, user, job, limit):
                    counts = {name: row[name] for name in ("messages", "feedback", "summaries")}
                    counts |= {"conversations": 1, "turns": len(row["turns"])}
                    await lent.execute(
                        "INSERT INTO brain.erasure_steps (tenant_id, erasure_id, conversation_id, counts, turns)"
                        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                        tenant,
                        job,
                        row["id"],
                        counts,
                        row["turns"],
                    )
                left = await lent.fetch(_STEPS, tenant, job, limit)
        return [
            Step(row["conversation_id"], [(turn, attempt) for turn, attempt in row["turns"]], row["counts"])
            for row in left
        ]

    @again
    async def messages_of(self, tenant: str, conversation: str) -> list[str]:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT id FROM brain.messages WHERE tenant_id = $1 AND conversation_id = $2", tenant, conversation
            )
        return [row["id"] for row in rows]

    @again
    async def count_vectors(self, tenant: str, job: str, conversation: str, vectors: int) -> None:
        """The first count stands: a second one may come after vectors have gone."""
        async with reading(self._pool, tenant) as lent:
            await lent.execute(
                "UPDATE brain.erasure_steps SET counts = jsonb_build_object('vectors', $4::integer) || counts"
                " WHERE tenant_id = $1 AND erasure_id = $2 AND conversation_id = $3",
                tenant,
                job,
                conversation,
                vectors,
            )

    @again
    async def turns_told_of(self, tenant: str, conversations: Sequence[str]) -> Turns:
        """Turns of deleted conversations that came between their count and their end, by their events."""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT DISTINCT payload->>'turn_id' AS id FROM brain.outbox WHERE tenant_id = $1"
                " AND payload->>'conversation_id' = ANY ($2) AND payload->>'turn_id' IS NOT NULL",
                tenant,
                list(conversations),
            )
        return [(row["id"], 1) for row in rows]

    @again
    async def step_done(self, tenant: str, job: str, steps: Sequence[Step], turns: Turns, journals: int) -> None:
        """These conversations are deleted: take out what else tells of them, and add their counts to the job's."""
        ids = [step.conversation for step in steps]
        async with reading(self._pool, tenant) as lent:
            events = await lent.fetchval("SELECT brain.erase_events($1)", ids, timeout=LONGEST)
            named = [turn for turn, _ in turns]
            unlinked = await lent.fetchval("SELECT brain.unlink_usage(NULL, NULL, $1)", named)
            gone = await lent.fetch(
                "DELETE FROM brain.idempotency WHERE tenant_id = $1 AND (turn_id = ANY ($2)"
                " OR response->>'id' = ANY ($3) OR response->>'conversation_id' = ANY ($3)) RETURNING 1",
                tenant,
                named,
                ids,
            )
            delivered = await lent.fetch(
                "DELETE FROM brain.deliveries WHERE tenant_id = $1 AND conversation_id = ANY ($2)"
                " AND (status <> 'waiting' OR type <> 'conversation.deleted') RETURNING 1",
                tenant,
                ids,
            )
            heard = await lent.fetch(
                "DELETE FROM brain.channel_messages WHERE tenant_id = $1 AND conversation_id = ANY ($2) RETURNING 1",
                tenant,
                ids,
            )
            rows = await lent.fetch(
                "UPDATE brain.erasure_steps SET erased_at = clock_timestamp() WHERE tenant_id = $1 AND erasure_id = $2"
                " AND conversation_id = ANY ($3) AND erased_at IS NULL RETURNING counts",
                tenant,
                job,
                ids,
            )
            counts = {"events": events, "usage": unlinked, "idempotency_keys": len(gone), "journals": journals}
            counts |= {"deliveries": len(delivered), "channel_messages": len(heard)}
            await _add(lent, tenant, job, [counts, *(row["counts"] for row in rows)])

    @again
    async def end_user(self, who: Caller, job: str, user: str) -> None:
        """What is left of a user once the conversations are gone: the account, sessions, keys, links."""
        async with reading(self._pool, who.tenant) as lent:
            if await _is_removed(lent, who.tenant, job):
                return
            keys = await lent.fetchval("SELECT brain.erase_user_keys($1)", user)
            sessions = await lent.fetchval(
                "SELECT count(*) FROM brain.sessions WHERE tenant_id = $1 AND user_id = $2", who.tenant, user
            )
            users = await lent.fetch(
                "DELETE FROM brain.users WHERE tenant_id = $1 AND id = $2 RETURNING 1", who.tenant, user
            )
            callers = [user, *keys]
            gone = await lent.fetch(
                "DELETE FROM brain.idempotency WHERE tenant_id = $1 AND (caller = ANY ($2) OR response->>'id' = $3)"
                " RETURNING 1",
                who.tenant,
                callers,
                user,
            )
            unlinked = await lent.fetchval("SELECT brain.unlink_usage($1, $2, NULL)", [user], callers, timeout=LONGEST)
            await lent.execute(
                "UPDATE brain.turns SET caller = NULL WHERE tenant_id = $1 AND caller = ANY ($2)", who.tenant, callers
            )
            if users:
                await lent.execute("SELECT brain.access_changed($1, 'user', $2)", who.tenant, user)
            consents = await lent.fetch(
                "DELETE FROM brain.tool_consents WHERE tenant_id = $1 AND user_id = $2 RETURNING 1", who.tenant, user
            )
            counts = {
                "users": len(users),
                "sessions": sessions,
                "api_keys": len(keys),
                "idempotency_keys": len(gone),
                "usage": unlinked,
                "tool_consents": len(consents),
            }
            await self._ended(lent, who, job, counts)

    @again
    async def end_tenant(self, who: Caller, job: str) -> None:
        """The tenant itself, with all that names it, but for its ledger without links and its audit log.

        `who.tenant` is the tenant. Raises `NotFound` for the operator's own, which stays.
        """
        async with reading(self._pool, who.tenant) as lent:
            if await _is_removed(lent, who.tenant, job):
                return
            counts = {
                name: await lent.fetchval(f"SELECT count(*) FROM brain.{table} WHERE tenant_id = $1", who.tenant)
                for name, table in _OF_TENANT
            }
            late = await lent.fetch(_COUNTS, who.tenant, None, job, 1_000_000)  # accepted since the last look
            for row in late:
                for name in ("messages", "feedback", "summaries"):
                    counts[name] = counts.get(name, 0) + row[name]
                counts["turns"] = counts.get("turns", 0) + len(row["turns"])
            counts["conversations"] = len(late)
            if not await lent.fetchval("SELECT brain.delete_tenant($1)", who.tenant):
                raise NotFound("there is no such tenant, or it is the operator's own")
            await lent.execute("DELETE FROM brain.idempotency WHERE tenant_id = $1", who.tenant)
            await lent.execute("DELETE FROM brain.reservations WHERE tenant_id = $1", who.tenant)
            counts["events"] = await lent.fetchval("SELECT brain.erase_events(NULL)", timeout=LONGEST)
            counts["usage"] = await lent.fetchval("SELECT brain.unlink_usage(NULL, NULL, NULL)", timeout=LONGEST)
            counts["tenants"] = 1
            await self._ended(lent, who, job, counts)

    @again
    async def deletions_waiting(self, tenant: str, job: str) -> int:
        """Deletions that the index of vectors has not yet confirmed: of the job's conversations, and of the tenant."""
        async with reading(self._pool, tenant) as lent:
            waiting: int = await lent.fetchval(
                "SELECT count(*) FROM brain.outbox o WHERE o.tenant_id = $1"
                " AND NOT (o.confirmed @> '{indexer}'::text[]) AND (o.topic = 'tenant.deleted'"
                " OR o.topic = 'conversation.deleted' AND EXISTS (SELECT FROM brain.erasure_steps s"
                " WHERE s.tenant_id = $1 AND s.erasure_id = $2 AND s.conversation_id = o.payload->>'conversation_id'))",
                tenant,
                job,
            )
        return waiting

    @again
    async def conversations_of(self, tenant: str, job: str, after: str, limit: int) -> list[str]:
        """The conversations of the job whose vectors were counted, in order."""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT conversation_id FROM brain.erasure_steps WHERE tenant_id = $1 AND erasure_id = $2"
                " AND conversation_id > $3 AND counts ? 'vectors' ORDER BY 1 LIMIT $4",
                tenant,
                job,
                after,
                limit,
            )
        return [row["conversation_id"] for row in rows]

    @again
    async def complete(self, tenant: str, job: str) -> Job:
        """Nothing is on its way any more, and events that were in somebody's hands can go. The steps are forgotten:
        what was erased has no name here then."""
        async with reading(self._pool, tenant) as lent:
            steps = await lent.fetch(
                "DELETE FROM brain.erasure_steps WHERE tenant_id = $1 AND erasure_id = $2 RETURNING conversation_id",
                tenant,
                job,
            )
            ids = [row["conversation_id"] for row in steps]
            events = await lent.fetchval("SELECT brain.erase_events($1)", ids, timeout=LONGEST)
            await _add(lent, tenant, job, [{"events": events}])
            row = await lent.fetchrow(
                "UPDATE brain.erasures SET completed_at = coalesce(completed_at, clock_timestamp())"
                f" WHERE tenant_id = $1 AND id = $2 RETURNING {JOB}",
                tenant,
                job,
            )
        assert row is not None
        return Job(**row)

    async def publish(self, key: Mapping[str, Any]) -> None:
        """Keep the public part of a key of receipts."""
        sql = "INSERT INTO brain.receipt_keys (kid, public) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        await call(self._pool, sql, key["kid"], dict(key))

    @again
    async def published(self) -> list[dict[str, Any]]:
        sql = "SELECT coalesce(jsonb_agg(public ORDER BY created_at DESC, kid), '[]') AS keys FROM brain.receipt_keys"
        found: list[dict[str, Any]] = (await call(self._pool, sql))["keys"]
        return found

    async def _is_there(self, lent: Connection, tenant: str, kind: Kind, subject: str) -> bool:
        if kind == "user":
            return bool(await lent.fetchval(_NAMED, tenant, subject))
        return bool(await lent.fetchval("SELECT EXISTS (SELECT FROM brain.tenants WHERE id = $1)", tenant))

    async def _ended(self, lent: Connection, who: Caller, job: str, counts: Mapping[str, int]) -> None:
        await _add(lent, who.tenant, job, [counts])
        row = await lent.fetchrow(
            "UPDATE brain.erasures SET removed_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2"
            " RETURNING kind, removed",
            who.tenant,
            job,
        )
        assert row is not None
        await record(lent, who, f"{row['kind']}.erased", job, {"removed": row["removed"]})


async def _is_removed(lent: Connection, tenant: str, job: str) -> bool:
    """Whether an earlier try got here already; holds the job's row."""
    at = await lent.fetchval(
        "SELECT removed_at FROM brain.erasures WHERE tenant_id = $1 AND id = $2 FOR UPDATE", tenant, job
    )
    return at is not None


async def _add(lent: Connection, tenant: str, job: str, more: Sequence[Mapping[str, int]]) -> None:
    removed: dict[str, int] = await lent.fetchval(
        "SELECT removed FROM brain.erasures WHERE tenant_id = $1 AND id = $2 FOR UPDATE", tenant, job
    )
    for counts in more:
        for name, number in counts.items():
            removed[name] = removed.get(name, 0) + number
    await lent.execute("UPDATE brain.erasures SET removed = $3 WHERE tenant_id = $1 AND id = $2", tenant, job, removed)


def _digest(key: bytes, tenant: str, kind: str, subject: str) -> bytes:
    return hmac.digest(key, "\0".join((tenant, kind, subject)).encode(), hashlib.sha256)
