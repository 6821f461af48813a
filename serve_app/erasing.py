"""Erasure of a user or a tenant: through the conversations' mailboxes, then what is left, then a signed receipt.

Whatever stops it, asking again goes on from there. One call works for a bounded time and says what is left to do.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import RedisError

from domain.conversation import ConversationKey
from domain.errors import NotFound, Unavailable
from domain.ports import Hosts
from domain.tenant import Caller
from storage.erasure import Job, Kind, PostgresErasure, Step, Turns
from storage.receipts import Receipts

log = logging.getLogger("brain.erasure")

TOGETHER, AT_ONCE = 32, 8  # conversations of a step, and of those in the hosts' hands
WORK, WAIT = 25.0, 10.0  # seconds of one call: for removing, and for vectors that are on their way
LOOK = 0.2  # seconds between two looks at these

KEPT = {
    "usage": "rows of the ledger stay, as accounts must, without user, caller and conversation",
    "audit": "the audit log stays: ids alone, of which none leads to a person any more",
    "learned": "what intents and complexity scorers learned stays: numbers, in which no text stands",
    "completions": "streams of completions that belong to no conversation end by themselves, within 15 minutes",
    "backups": "backups that were made before hold it until they are removed",
}


class HeldVectors(Protocol):
    """What an index of vectors holds. Raises `Unavailable`."""

    async def count_held(self, tenant: str, messages: Sequence[str]) -> int:
        """How many of these messages have a vector."""
        ...

    async def holds_conversation(self, tenant: str, conversation: str) -> bool: ...


Forget = Callable[[str, Turns], Awaitable[int]]
Changed = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Found:
    """`vectors_waiting`: deletions that the index has not done; None: it cannot be asked."""

    job: Job
    more: bool = False
    vectors_waiting: int | None = 0


class Erasing:
    """`forget`: removes the journals of turns. `changed`: called after access changed."""

    def __init__(
        self,
        store: PostgresErasure,
        hosts: Hosts,
        receipts: Receipts,
        forget: Forget,
        vectors: HeldVectors | None = None,
        changed: Changed | None = None,
        *,
        work: float = WORK,
        wait: float = WAIT,
        look: float = LOOK,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.receipts = receipts
        self._store, self._hosts, self._forget, self._vectors = store, hosts, forget, vectors
        self._changed, self._work, self._wait, self._look, self._now = changed, work, wait, look, now
        self._published = False

    async def user(self, who: Caller, user: str) -> dict[str, Any]:
        """Erase a user of `who.tenant`: a registered one, or one that conversations name. Raises `NotFound`."""
        return await self._erase(who, "user", user, user)

    async def tenant(self, who: Caller) -> dict[str, Any]:
        """Erase `who.tenant`. Raises `NotFound`, also for the operator's own."""
        return await self._erase(who, "tenant", who.tenant, None)

    async def keys(self) -> list[dict[str, Any]]:
        """The public keys of receipts, as JSON Web Keys: those at hand, then those of earlier master keys."""
        known = {key["kid"]: key for key in (*self.receipts.keys, *await self._store.published())}
        return list(known.values())

    async def _erase(self, who: Caller, kind: Kind, subject: str, user: str | None) -> dict[str, Any]:
        if not self._published:
            await self._store.publish(self.receipts.keys[0])
            self._published = True
        job = await self._store.begin(who.tenant, kind, subject)
        found = await self._removed(who, job, user) if job.removed_at is None else Found(job)
        if not found.more and job.completed_at is None:
            found = await self._settled(who.tenant, job.id)
        return self.receipts.signed(receipt(who.tenant, subject, found))

    async def _removed(self, who: Caller, job: Job, user: str | None) -> Found:
        deadline = self._now() + self._work
        while steps := await self._store.steps(who.tenant, job.id, user, TOGETHER):
            await self._step(who.tenant, job.id, steps)
            if self._now() > deadline:
                return Found(await self._store.job(who.tenant, job.id), more=True)
        if user is None:
            await self._store.end_tenant(who, job.id)
        else:
            await self._store.end_user(who, job.id, user)
        if self._changed is not None:
            with suppress(Unavailable):
                await self._changed()
        return Found(job)

    async def _step(self, tenant: str, job: str, steps: Sequence[Step]) -> None:
        limit = asyncio.Semaphore(AT_ONCE)

        async def gone(step: Step) -> None:
            async with limit:
                await self._count(tenant, job, step)
                with suppress(NotFound):
                    await self._hosts.delete(ConversationKey(tenant, step.conversation))

        for error in await asyncio.gather(*map(gone, steps), return_exceptions=True):
            if isinstance(error, BaseException):
                raise error
        told = await self._store.turns_told_of(tenant, [step.conversation for step in steps])
        counted = [turn for step in steps for turn in step.turns]
        known = {turn for turn, _ in counted}
        turns = counted + [one for one in told if one[0] not in known]
        try:
            journals = await self._forget(tenant, turns)
        except (RedisError, OSError, TimeoutError):
            log.warning("Redis is away: journals of erased turns end by themselves")
            journals = 0
        await self._store.step_done(tenant, job, steps, turns, journals)

    async def _count(self, tenant: str, job: str, step: Step) -> None:
        """Count the conversation's vectors before it goes; an index that is away costs the figure, not the erasure."""
        if self._vectors is None or "vectors" in step.counts:
            return
        try:
            messages = await self._store.messages_of(tenant, step.conversation)
            vectors = await self._vectors.count_held(tenant, messages)
        except Unavailable:
            return
        await self._store.count_vectors(tenant, job, step.conversation, vectors)

    async def _settled(self, tenant: str, job: str) -> Found:
        """Wait until the index has done the deletions, then see that nothing of it is left there."""
        deadline = self._now() + self._wait
        while waiting := await self._store.deletions_waiting(tenant, job):
            if self._now() > deadline:
                return Found(await self._store.job(tenant, job), vectors_waiting=waiting)
            await asyncio.sleep(self._look)
        try:
            left = await self._left(tenant, job)
        except Unavailable:
            return Found(await self._store.job(tenant, job), vectors_waiting=None)
        if left:
            return Found(await self._store.job(tenant, job), vectors_waiting=left)
        return Found(await self._store.complete(tenant, job))

    async def _left(self, tenant: str, job: str) -> int:
        """Conversations of which the index still holds vectors although it has confirmed their deletion."""
        left, after = 0, ""
        while self._vectors is not None:
            page = await self._store.conversations_of(tenant, job, after, 500)
            if not page:
                break
            for conversation in page:
                left += await self._vectors.holds_conversation(tenant, conversation)
            after = page[-1]
        return left


def receipt(tenant: str, subject: str, found: Found) -> dict[str, Any]:
    """What was removed of whom and when, what is on its way, and what is kept and why: text and whole numbers alone."""
    job = found.job
    removed = {name: number for name, number in sorted(job.removed.items()) if name != "usage"}
    pending: dict[str, Any] = {}
    if found.more:
        pending["conversations"] = "not all are removed yet: ask again"
    elif job.completed_at is None:
        pending["vectors"] = found.vectors_waiting if found.vectors_waiting is not None else "the index does not answer"
    return {
        "object": "erasure_receipt",
        "id": job.id,
        "tenant_id": tenant,
        "subject": {"object": job.kind, "id": subject},
        "status": "in_progress" if pending else "completed",
        "requested_at": _utc(job.requested_at),
        "completed_at": None if job.completed_at is None else _utc(job.completed_at),
        "removed": removed,
        "pending": pending,
        "kept": {
            name: {"rows": job.removed.get("usage", 0), "why": why} if name == "usage" else {"why": why}
            for name, why in KEPT.items()
        },
    }


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
