"""Summarises the block of history that a prompt will drop next, before it has to: after a turn's commit, off its path.

Sentences are extracted, or a model writes the summary where the tenant has named one. Prompts tell it from the block's
boundary on; the next owner reads it with the conversation.
"""

import asyncio
import logging
from typing import Protocol

from actors.asides import surely
from actors.mailbox import Mailbox
from actors.parts import Parts
from actors.run import TurnRun
from actors.summary_writing import write
from actors.window import Window
from domain.commands import Ended
from domain.context import Prompt, Remembered
from domain.context.blocks import due, next_block
from domain.context.told import summary_limit
from domain.conversation import ConversationKey
from domain.errors import BrainError

log = logging.getLogger("brain.summary")
BATCH, BATCHES = 200, 10  # messages that are read at once, and how often, to summarise what nobody has
USUAL = 8192  # tokens of a prompt, where none was built


class Owner(Protocol):
    """The conversation's actor. Its method is for its own consumer."""

    key: ConversationKey
    mailbox: Mailbox

    async def keep_summary(self) -> None: ...


def summarise(owner: Owner, run: TurnRun, ended: Ended) -> asyncio.Task[None] | None:
    """Begin what is due after this turn. The task ends by itself, whatever happens to it."""
    window, prompt = run.window, run.choice.prompt if run.choice else None
    block = _next_block(run.parts, window, prompt)
    if not block and not window.gap and window.summary == window.kept:
        return None
    if len(run.parts.summaries) >= run.parts.limits.summaries:
        return None  # the next turn begins it, or its prompt extracts what it must
    task = asyncio.create_task(_summarise(owner, run, block, ended))
    run.parts.summaries.add(task)
    task.add_done_callback(run.parts.summaries.discard)
    return task


def _next_block(parts: Parts, window: Window, prompt: Prompt | None) -> list[Remembered]:
    most = parts.limits.context_messages
    if prompt is None:
        return []
    reply = window.messages[-1].tokens if window.messages else 0
    if not due(prompt, reply, len(window.messages), most):
        return []
    return next_block(window.messages, window.summary, prompt, most)


async def _summarise(owner: Owner, run: TurnRun, block: list[Remembered], ended: Ended) -> None:
    window = run.window
    limit = summary_limit(run.choice.prompt.budget if run.choice else USUAL)
    try:
        if window.gap:
            await _fill(owner, run, limit)
        if block and not window.gap:
            await _extend(owner, run, block, limit, ended)
        if window.summary != window.kept:
            await owner.mailbox.do(owner.keep_summary)
    except BrainError as error:
        log.info("no summary after %s: %s", ended.turn.id, error)  # the next turn tries again
    except Exception:
        log.exception("a summary failed", extra={"turn_id": ended.turn.id})


async def _extend(owner: Owner, run: TurnRun, block: list[Remembered], limit: int, ended: Ended) -> None:
    window, summary = run.window, run.window.summary
    written = await write(run, summary, block, limit)
    grown, in_time = summary, False
    try:
        grown = await asyncio.to_thread(summary.extended, block, limit, written.text, written.made_by)
        in_time = window.summary is summary
        if in_time:
            window.summarised(grown)
    finally:
        if written.report is not None:
            made = {"made_by": written.made_by, "up_to_seq": grown.seq, "in_time": in_time}
            report = {**written.report, **made}
            await surely(run.parts, run.parts.store.summary_made(owner.key, ended.turn.id, report, written.calls))


async def _fill(owner: Owner, run: TurnRun, limit: int) -> None:
    """Take in the turns before the window that no summary covers: an owner died, or an earlier version dropped them."""
    window = run.window
    for _ in range(BATCHES):
        summary = window.summary
        found = await run.parts.store.between(owner.key, summary.until, window.start, BATCH)
        whole = len(found) < BATCH
        if not whole and found[0].order < found[-1].order:
            found = [one for one in found if one.order < found[-1].order]  # the last turn may go on
        grown = await asyncio.to_thread(summary.extended, found, limit)
        if window.summary is not summary:
            return
        window.summarised(grown)
        if whole:
            window.gap = False
            return
