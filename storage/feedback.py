"""Feedback on answers: one a message, the last one counts."""

import asyncpg

from domain.errors import NotFound
from domain.feedback import Feedback
from storage.postgres import Pool, reading
from storage.retry import again

_COLUMNS = "message_id, score, comment, created_at, updated_at"


class FeedbackOnAnswers:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such answer."""

    _pool: Pool

    @again
    async def put_feedback(self, tenant: str, message_id: str, score: float, comment: str | None) -> Feedback:
        """Give or replace the feedback on an answer; a user's own message has none."""
        try:
            async with reading(self._pool, tenant) as lent:
                row = await lent.fetchrow(
                    "INSERT INTO brain.feedback AS f (tenant_id, message_id, score, comment)"
                    " SELECT tenant_id, id, $3, $4 FROM brain.messages"
                    " WHERE tenant_id = $1 AND id = $2 AND role = 'assistant'"
                    " ON CONFLICT (tenant_id, message_id) DO UPDATE"
                    f" SET score = excluded.score, comment = excluded.comment, updated_at = now() RETURNING {_COLUMNS}",
                    tenant,
                    message_id,
                    score,
                    comment,
                )
        except asyncpg.ForeignKeyViolationError:  # it was deleted meanwhile
            row = None
        if row is None:
            raise NotFound("there is no such answer")
        return Feedback.model_construct(**row)

    @again
    async def feedback(self, tenant: str, message_id: str) -> Feedback:
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {_COLUMNS} FROM brain.feedback WHERE tenant_id = $1 AND message_id = $2", tenant, message_id
            )
        if row is None:
            raise NotFound("nobody has given feedback on this message")
        return Feedback.model_construct(**row)

    @again
    async def remove_feedback(self, tenant: str, message_id: str) -> None:
        """Nothing happens where an answer has none."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetchval(
                "WITH removed AS (DELETE FROM brain.feedback WHERE tenant_id = $1 AND message_id = $2)"
                " SELECT EXISTS (SELECT FROM brain.messages WHERE tenant_id = $1 AND id = $2)",
                tenant,
                message_id,
            )
        if not found:
            raise NotFound("there is no such message")
