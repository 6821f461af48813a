"""Brings one attempt of a turn from its acceptance to a reply, without touching Postgres."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from actors.parts import Parts
from actors.turn import LiveTurn, unjournalled
from domain.commands import Ended
from domain.context import Remembered, build_prompt
from domain.conversation import Conversation, ConversationKey
from domain.errors import BrainError, JournalUnavailable, ModelNotFound
from domain.events import ACCEPTED, CANCELLED, COMPLETED, FAILED, INTENT, MODEL, RESET, Layout
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.message import MessageStatus
from domain.model import AUTO
from domain.ports import Reply
from domain.selection import Selection, select
from domain.turn import TurnStatus

TERMINAL = {TurnStatus.COMPLETED: COMPLETED, TurnStatus.FAILED: FAILED, TurnStatus.CANCELLED: CANCELLED}


class TurnRun:
    """One attempt of one turn. `history` are the conversation's hot messages, the turn's own among them."""

    def __init__(
        self,
        parts: Parts,
        key: ConversationKey,
        live: LiveTurn,
        conversation: Conversation,
        history: Sequence[Remembered],
        window_from: int,
    ) -> None:
        self.parts, self.key, self.live = parts, key, live
        self._conversation, self._history, self._window_from = conversation, history, window_from
        self._understanding: asyncio.Task[None] | None = None
        self._marks: dict[str, float] = {}
        self.selection: Selection | None = None

    async def generate(self, opening: list[tuple[str, dict[str, Any]]]) -> Outcome:
        """Say `opening` in the stream, choose the model, ask it. Raises `Unavailable` if the generation was lost."""
        asked = self.live.asked
        if asked.understand and self.live.intent is None:
            self._understanding = asyncio.create_task(self._understand())
        try:
            if asked.requested_model == AUTO:
                await self.say(opening)
                if self._understanding is not None:
                    await self._understanding
                self.selection = self._select()
                await self.say(self._chosen(self.selection))
            else:
                self.selection = self._select()
                await self.say([*opening, *self._chosen(self.selection)])
            if self.live.cancelled:
                return Outcome("cancelled")
            request = self._request(self.selection)
            self.live.request = request
            self._marks["generation"] = time.monotonic()
            return await self.parts.llm.generate(request)
        finally:
            await self._understood()

    async def say(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Append the owner's events. A journal that is away costs the stream its deltas, never the turn."""
        live = self.live
        n: int | None = None
        if not events:
            return
        try:
            n = await self.parts.journal.append(self.key.tenant, live.id, live.attempt, events, live.n)
        except JournalUnavailable:
            n = None
        if n is not None:
            live.note(n - len(events) + 1, events)
        if not live.opened.done():
            live.opened.set_result(n is not None)

    def reply(self, outcome: Outcome, layout: Layout | None) -> Reply:
        """What is stored of an outcome."""
        live = self.live
        status: MessageStatus = "failed"
        if outcome.ending in ("completed", "cancelled"):
            status = "completed" if outcome.ending == "completed" else "cancelled"
        route = self.parts.catalog.find(outcome.model) if outcome.model else None
        cost = route.model.cost_usd(outcome.usage) if route else None
        model = outcome.model or (self.selection.route.id if self.selection else None)
        return Reply(
            status=status,
            message_id=live.reply_id or new_id("msg"),
            text=outcome.text,
            model=model,
            intent=live.intent,
            usage=outcome.usage,
            cost_usd=None if cost is None else float(cost),
            error=outcome.error if status == "failed" else None,
            layout=layout if layout is not None else unjournalled(),
            trace=self._trace(outcome),
            window_from=self._window_from,
            provider=route.provider.name if route else None,
            estimated=outcome.estimated,
        )

    def _select(self) -> Selection:
        return select(self.parts.catalog, self.live.asked.requested_model, self.live.intent)

    def _chosen(self, selection: Selection) -> list[tuple[str, dict[str, Any]]]:
        """The event that names the model, unless an earlier owner of this attempt has named it."""
        if any(said["type"] == MODEL for said in self.live.said.values()):
            return []
        return [(MODEL, {"model": selection.route.id, "reason": selection.reason})]

    def _request(self, selection: Selection) -> GenerationRequest:
        model, asked = selection.route.model, self.live.asked
        answer = min(asked.parameters.get("max_tokens") or model.max_output_tokens, model.context_tokens // 2)
        prompt = build_prompt(
            self._conversation.system_prompt,
            self._history,
            asked.order,
            self._window_from,
            model.context_tokens - answer,
            self.parts.limits.context_messages,
        )
        self._window_from = prompt.window_from
        self.live.trace["context"] = {**prompt.account, "shared_prefix_tokens": 0}
        return GenerationRequest(
            tenant=self.key.tenant,
            turn_id=self.live.id,
            attempt=self.live.attempt,
            model=selection.route.id,
            messages=prompt.messages,
            parameters=asked.parameters,
            intent=self.live.intent.name if self.live.intent else None,
            chain=tuple(route.id for route in selection.fallback),
            n=self.live.n,
            live=asked.live,
        )

    async def _understand(self) -> None:
        """Classify the message; whatever goes wrong here costs the intent, never the turn."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.parts.limits.classify_timeout):
                understood = await self.parts.classifier.classify(self.live.asked.user_message.content)
        except (BrainError, TimeoutError):
            return
        finally:
            self._marks["classify_ms"] = (time.monotonic() - began) * 1000
        self.live.intent = understood.intent
        await self.say([(INTENT, {"intent": understood.intent.model_dump()})])

    async def _understood(self) -> None:
        if self._understanding is not None:
            await asyncio.gather(self._understanding, return_exceptions=True)

    def _trace(self, outcome: Outcome) -> dict[str, Any]:
        live, selection = self.live, self.selection
        first = next((a.first_token_ms for a in outcome.attempts if a.status == "ok"), None)
        timings: dict[str, float | None] = {
            "total": (time.monotonic() - live.began) * 1000,
            "classify": self._marks.get("classify_ms"),
        }
        if "generation" in self._marks:
            before = timings["before_generation"] = (self._marks["generation"] - live.began) * 1000
            timings["first_token"] = None if first is None else before + first
        return {
            "turn_id": live.id,
            "intent": live.intent and live.intent.model_dump(),
            "candidates": selection.candidates if selection else [],
            "chosen": outcome.model or (selection.route.id if selection else None),
            "reason": selection.reason if selection else None,
            "attempts": [
                {name: getattr(attempt, name) for name in attempt.__dataclass_fields__} for attempt in outcome.attempts
            ],
            "context": live.trace.get("context"),
            "sources": [],
            "timings_ms": {name: round(ms, 2) for name, ms in timings.items() if ms is not None},
        }


def opening(live: LiveTurn) -> list[tuple[str, dict[str, Any]]]:
    """The first event of the current attempt."""
    if live.attempt == 1:
        return [(ACCEPTED, {"user_message": live.asked.user_message.model_dump(mode="json")})]
    return [(RESET, {"reason": "the generation was lost; another attempt begins"})]


def failure(error: BrainError, turn_id: str) -> Outcome:
    """The outcome of a turn that could not be asked."""
    body = {"message": str(error), "type": error.type, "param": turn_id, "code": error.code}
    if isinstance(error, ModelNotFound):
        body["param"] = "model"
    return Outcome("failed", error=body, status=error.status)


async def tell_end(run: TurnRun, ended: Ended, after: int) -> None:
    """The terminal event, after its commit. If the journal is away, readers find the end in Postgres."""
    kind = TERMINAL[ended.turn.status]
    message = ended.message.model_dump(mode="json") if ended.message else None
    data: dict[str, Any] = {"message": message}
    if kind == COMPLETED and ended.message is not None:
        data |= {"usage": message and message["usage"], "cost_usd": ended.message.cost_usd}
    if kind == FAILED:
        data = {"error": ended.turn.error, "message": message}
    try:
        await run.parts.journal.append(run.key.tenant, run.live.id, ended.turn.attempt, [(kind, data)], after)
    except JournalUnavailable:
        return
