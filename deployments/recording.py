"""What one generation tells the journal, while it runs."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

from deployments.providers.reading import merged
from domain.errors import JournalRefused, JournalUnavailable
from domain.events import CANDIDATE_DELTA, MODEL, Entry
from domain.generation import GenerationRequest, Outcome
from domain.ports import Journal

log = logging.getLogger(__name__)
Told = TypeVar("Told")

QUIET_INTERVAL = 0.1  # seconds between two writes where nobody waits for each delta
TOOL_CALLS = "message.tool_calls"  # an event of a generation that is not kept: {"tool_calls": deltas as OpenAI's}


class Recording:
    """Writes a generation's deltas in order, one write at a time; what comes meanwhile goes into the next one.

    Nothing is written before `claim` has ended; it is `refused` where another process holds this generation. `deltas`
    are the (n, length) of what the journal took; `unanswered` is the layout's entry of what it may have taken behind
    that, wherever. Once `lost`, nothing more is written: another process has taken over, or the journal no longer holds
    what was written.
    """

    def __init__(
        self, journal: Journal, request: GenerationRequest, writer: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.deltas: list[tuple[int, int]] = []
        self.models: list[tuple[int, str, str]] = []
        self.claimed, self.refused, self.lost = False, False, False
        self.unanswered: Entry | None = None
        self._answered = True
        self._journal, self._request, self._writer, self._monotonic = journal, request, writer, monotonic
        self._wrote_at = monotonic()
        self._n = request.n
        self._pending: list[str | tuple[dict[str, Any], ...]] = []  # texts and calls of tools, in order
        self._ready, self._changed, self._ending = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def claim(self) -> bool:
        """False if another process holds this generation; without a journal it goes on unrecorded."""
        try:
            if self._request.journal:
                claimed = await self._told(self._journal.claim(self._request, self._writer))
                self.claimed, self.refused, self.lost = bool(claimed), claimed is False, claimed is None
            else:
                self.lost = True
        finally:
            self._ready.set()
        return not self.refused

    def quiet_since(self, moment: float) -> bool:
        """Whether the journal holds this generation's claim and has had nothing from it since then."""
        return self.claimed and not self.lost and self._wrote_at <= moment

    def add(self, text: str) -> None:
        if not self.lost:
            self._pending.append(text)
            self._changed.set()

    def add_tool_calls(self, calls: Sequence[dict[str, Any]]) -> None:
        """Deltas of tool calls, in the shape of OpenAI's chat stream; they keep their place among the texts."""
        if calls and not self.lost and not self._request.kept:  # of a turn's own tools its clients are told nothing
            self._pending.append(tuple(calls))
            self._changed.set()

    async def replace_model(self, model: str, reason: str) -> None:
        """Tell that `model` answers instead; called before the first delta."""
        await self._ready.wait()
        if self.lost:
            return
        request, data = self._request, {"model": model, "reason": reason}
        n = await self._told(
            self._journal.append(request.tenant, request.turn_id, request.attempt, [(MODEL, data)], after=self._n)
        )
        if n is None:
            self._lose({"type": MODEL, **data})
        else:
            self._n = n
            self.models.append((n, model, reason))

    async def seal(self, outcome: Outcome) -> None:
        """Say how it ended. What is not wholly recorded stays unsealed: its readers must not take it for the whole."""
        if self.claimed and not self.lost and self._request.side is None:
            await self._told(self._journal.seal(self._request, self._writer, outcome))

    async def run(self) -> None:
        """Write until `end` was called and everything is written."""
        while not self._ending.is_set() or (self._pending and not self.lost):
            await self._changed.wait()
            self._changed.clear()
            if not self._request.live:
                await self._more()
            if self._pending and not self.lost:
                await self._write()

    def end(self) -> None:
        """No more text comes."""
        self._ending.set()
        self._changed.set()

    async def _more(self) -> None:
        """Wait for the end, but not longer than QUIET_INTERVAL."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_INTERVAL):
                await self._ending.wait()

    async def _write(self) -> None:
        pending, self._pending = self._pending, []
        for is_text, run in groupby(pending, lambda one: isinstance(one, str)):
            text = ""
            if is_text:
                text = "".join(str(one) for one in run)
                n = await self._told(self._write_text(text))
            else:
                n = await self._write_calls([call for calls in run for call in calls if isinstance(call, dict)])
            if n is None:
                self._lose(self._entry(text) if text else None)
                return
            self._n = n
            if text:
                self.deltas.append((n, len(text)))
            self._wrote_at = self._monotonic()

    def _write_text(self, text: str) -> Awaitable[int | None]:
        request = self._request
        if request.side is None:
            return self._journal.write(request, self._writer, (text,), self._n)
        event = (CANDIDATE_DELTA, self._candidate(text))
        return self._journal.append(request.tenant, request.turn_id, request.attempt, [event], after=self._n)

    def _candidate(self, text: str) -> dict[str, Any]:
        return {"index": self._request.side, "model": self._request.model, "text": text}

    def _entry(self, text: str) -> Entry:
        """A delta as a layout has it."""
        return len(text) if self._request.side is None else {"type": CANDIDATE_DELTA, **self._candidate(text)}

    def _lose(self, entry: Entry | None) -> None:
        """The last write failed. A reader may have it all the same, where nobody said that it was refused."""
        self.lost = True
        self.unanswered = None if self._answered else entry

    async def _write_calls(self, calls: list[dict[str, Any]]) -> int | None:
        """Renew the claim first, so that it is this writer's for as long as the event's own write may take."""
        request = self._request
        if await self._told(self._journal.write(request, self._writer, (), self._n)) is None:
            return None
        events = [(TOOL_CALLS, {"tool_calls": list(merged(calls))})]
        return await self._told(
            self._journal.append(request.tenant, request.turn_id, request.attempt, events, after=self._n)
        )

    async def _told(self, call: Awaitable[Told]) -> Told | None:
        """The journal's answer, or None where it failed: no failure of the journal may cost a reply."""
        self._answered = False
        try:
            told = await call
        except JournalUnavailable as error:
            self._answered = isinstance(error, JournalRefused)
            log.warning("%s: %s", self._request.name, error)
        except Exception:
            log.exception("%s: the journal failed", self._request.name)
        else:
            self._answered = True
            return told
        return None
