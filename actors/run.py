"""Brings one attempt of a turn from its acceptance to a reply, without touching Postgres."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from actors.choice import Choice, Question, choose
from actors.parts import Parts
from actors.products import Message, Products, look_up
from actors.telling import Events
from actors.trace import trace_of
from actors.turn import LiveTurn, unjournalled
from actors.window import Window
from domain.clarifying import clarification_json
from domain.context import ESTIMATE, Material, Remembered, estimate_tokens
from domain.conversation import ConversationKey
from domain.embedding import Embedding
from domain.errors import BrainError, JournalRefused, JournalUnavailable
from domain.events import ACCEPTED, INTENT, MODEL, RESET, Layout
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.ledger import Charge, Version, bounded, charges
from domain.message import MessageStatus, added
from domain.model import AUTO, SCRIPTED, Route
from domain.model_settings import ModelSettings
from domain.ports import Reply
from domain.tools import Offer

log = logging.getLogger("brain.turn")
COUNTED_AT_ONCE = 16  # messages; a tokenizer takes some 0.1 ms for each


@dataclass(frozen=True, slots=True)
class Ground:
    """What a choice of models stands on: the tenant's rules, and what the prompt may tell from the order `start` on."""

    settings: ModelSettings
    start: int
    history: list[Remembered]


class TurnRun:
    """One attempt of one turn. `window` is the conversation's hot context, the turn's own message in it; `epoch` is
    the one of the conversation's ownership."""

    def __init__(self, parts: Parts, key: ConversationKey, live: LiveTurn, window: Window, epoch: int) -> None:
        self.parts, self.key, self.live, self.window, self.epoch = parts, key, live, window, epoch
        self._understanding: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._embedding: Embedding | None = None
        self.material: tuple[Material, ...] = ()
        self.products: Products | None = None
        self.citations: list[dict[str, Any]] = []
        self.marks: dict[str, float] = {}
        self.choice: Choice | None = None
        self.told: dict[str, Any] = {}  # what else the trace tells
        self.versions: tuple[Version, ...] = ()
        self.settings: ModelSettings | None = None
        self.offer = Offer()
        self._asked_for_tools = False

    async def generate(self, opening: Events) -> Outcome:
        """Say `opening` in the stream, choose the model, ask it. Raises `Unavailable` if the generation was lost."""
        live = self.live
        requested = (self._named() if live.prefix or live.heard else None) or live.asked.requested_model
        async with self.understood() as ground:
            if (
                requested == AUTO or self._recalling or self._looking
            ):  # what is waited for must not hold the opening back
                await self.say(opening)
                opening = []
            if requested == AUTO:
                await self._understood()
            await self.recalled()
            await self.offered()
            choice = self.choice
            if choice is None or not live.heard or choice.selection.route.id != requested:
                choice = self.choice = self.choose(ground, requested)  # else the prompt stays what it was
            events = [*opening, *self._chosen(choice)]
            if live.cancelled:
                await self.say(events)
                return Outcome("cancelled", live.said_so_far)
            request = live.request = replace(self.request(choice, ground), n=live.n + len(events))
            self.marks["generation"] = time.monotonic()
            if not live.heard:
                self.marks["first_generation"] = self.marks["generation"]
            # The model is asked meanwhile: its first delta is written after a round trip to Redis, so after these. Were
            # they late all the same, the journal would refuse the deltas, and the stream say so.
            saying = self._saying = asyncio.create_task(self.say(events))
            try:
                return await self.parts.llm.generate(request)
            finally:
                await asyncio.wait([saying])

    @asynccontextmanager
    async def understood(self) -> AsyncIterator[Ground]:
        """What the choice stands on. Meanwhile the message is classified; that has ended at the end.

        Raises `Unavailable` where the tenant's rules or settings were never read and cannot be now.
        """
        settings = self.settings = await self.parts.models.settings(self.key.tenant)
        tenant = self.window.tenant = await self.parts.tenants.settings(self.key.tenant)
        ground = Ground(settings, *await self._history())
        await self._count(ground.history)
        if self.live.asked.understand and self.live.intent is None:
            self._understanding = asyncio.create_task(self._understand())
        if (
            self._recalling is None
            and tenant.enabled("recall")
            and self.parts.recalls(self.window.conversation.user_id)
        ):
            self._recalling = asyncio.create_task(self._recall())
        if not self.parts.structures.empty(self.key.tenant):
            self._looking = asyncio.create_task(self._look_up(ground.history))
        try:
            yield ground
        finally:
            await self._understood()

    def choose(self, ground: Ground, requested: str) -> Choice:
        """The model that answers, and its prompt. Raises `ModelNotFound` and `BudgetExceeded`."""
        live, asked = self.live, self.live.asked
        question = Question(
            requested,
            asked.parameters,
            asked.order,
            ground.start,
            ground.history,
            live.intent,
            live.complexity,
            live.held,
            self.material if self.products is None else (*self.material, self.products.material),
            self._room_for_tools(),
        )
        return choose(self.parts, ground.settings, self.window, question)

    async def say(self, events: Events) -> None:
        """Append the owner's events. A journal that is away costs the stream its deltas, never the turn.

        Nothing is said in an attempt whose opening is not there.
        """
        live = self.live
        n: int | None = None
        if not events:
            return
        known = live.n if events[0][0] in (ACCEPTED, RESET) else max(live.n, 1)
        try:
            n = await self.parts.journal.append(self.key.tenant, live.id, live.attempt, events, known, self.epoch)
        except JournalRefused:
            n = None
        except JournalUnavailable:
            n = None
            if live.n > 0 or events[0][0] == RESET:  # else nobody follows this stream
                live.doubt(events)
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
        cost = self.cost(outcome)
        if live.spent is not None:
            cost = live.spent + (cost or 0)
        whole = replace(outcome, attempts=(*live.tried, *outcome.attempts))
        model = outcome.model or (self.choice.selection.route.id if self.choice else None)
        start = self.window.start
        if self.choice is not None and live.asked.regenerates is None:
            start = self.choice.prompt.window_from
        return Reply(
            status=status,
            message_id=new_id("msg"),
            text=outcome.text,
            model=model,
            intent=live.intent,
            usage=added((*live.used, outcome.usage)),
            cost_usd=None if cost is None else float(cost),
            error=outcome.error if status == "failed" else None,
            layout=layout if layout is not None else unjournalled(),
            trace=trace_of(live, self.choice, whole, self.marks) | self.told,
            window_from=start,
            provider=route.provider.name if route else None,
            estimated=outcome.estimated,
            calls=self.calls(outcome),
            versions=self.versions if status == "completed" else (),
            citations=self.citations,
        )

    def cost(self, outcome: Outcome) -> Decimal | None:
        """USD of what the outcome counts as used; None without a price."""
        route = self.parts.catalog.find(outcome.model) if outcome.model else None
        return route.model.cost_usd(outcome.usage) if route else None

    async def offered(self) -> None:
        """Learn, once a turn, which tools it may call; whatever goes wrong here costs the tools, never the turn."""
        if self._asked_for_tools or not self.parts.has_tools or self.live.asked.models:
            return
        self._asked_for_tools = True
        limits, user = self.parts.limits, self.window.conversation.user_id
        try:
            async with asyncio.timeout(limits.offer_timeout):
                self.offer = await self.parts.tools.offered(self.key.tenant, user, self.live.id)
        except (BrainError, TimeoutError):
            self.offer = Offer(left_out=(("", "which tools there are cannot be read now"),))

    def _room_for_tools(self) -> int:
        """Tokens that a prompt must leave for the tools and for what they gave."""
        told = [message for one in self.live.rounds for message in one.messages()]
        return sum(estimate_tokens(str(one)) for one in (*self.offer.shapes, *told))

    def calls(self, outcome: Outcome) -> tuple[Charge, ...]:
        """What the attempt is charged for that ended with `outcome`."""
        before = self.live.calls
        return (*before, *charges(self.parts.catalog, outcome.attempts, len(before) + 1))

    async def _history(self) -> tuple[int, list[Remembered]]:
        """The order from which the prompt may tell on, and what it may tell."""
        order = self.live.asked.order
        told = self.window.before(order)
        if any(message.order == order for message in told) and order >= self.window.start:
            return self.window.start, told
        told = await self.parts.store.before(self.key, order, self.parts.limits.context_messages)
        return min((message.order for message in told), default=1), told

    async def _count(self, history: list[Remembered]) -> None:
        """Have much that was never counted counted beside the event loop, by the tokenizer of the model it is for."""
        requested = self.live.asked.requested_model
        route = self.parts.catalog.find(self.window.model or "" if requested == AUTO else requested)
        counter = ESTIMATE if route is None else self.parts.counters.counter(route.model)
        if counter is not ESTIMATE:
            new = [message for message in history if counter.name not in message.counts]
            if len(new) > COUNTED_AT_ONCE:
                await asyncio.to_thread(lambda: [message.size(counter) for message in new])

    def _chosen(self, choice: Choice) -> Events:
        """The event that names the model, unless this attempt has named it last."""
        selection = choice.selection
        if self._named() == selection.route.id:
            return []
        return [(MODEL, {"model": selection.route.id, "reason": selection.reason})]

    def _named(self) -> str | None:
        """The model that this attempt has named last."""
        named = [said["model"] for _, said in sorted(self.live.said.items()) if said["type"] == MODEL]
        return named[-1] if named else None

    def prompt_tokens(self) -> int:
        """Tokens of the prompt, an estimate; of one that an earlier owner made, by what it would tell now."""
        if self.choice is not None:
            return self.choice.prompt.tokens
        told = self.window.before(self.live.asked.order)
        system = estimate_tokens(self.window.instructions or "")
        return system + sum(message.tokens for message in told if message.order >= self.window.start)

    def request(self, choice: Choice, ground: Ground) -> GenerationRequest:
        """The generation of this attempt by the chosen model."""
        live, selection = self.live, choice.selection
        routes = (selection.route, *selection.fallback)
        parameters = live.asked.parameters if live.held is None else bounded(routes, live.asked.parameters)
        if self.offer.tools and "tools" in selection.route.model.capabilities:
            parameters = {**parameters, "tools": self.offer.shapes}
            if len(live.rounds) >= self.parts.limits.tool_rounds:
                parameters["tool_choice"] = "none"
        if live.rounds:  # others may not be able to read what this one has called
            routes = tuple(route for route in routes if "tools" in route.model.capabilities)[:1] or routes[:1]
        return GenerationRequest(
            tenant=self.key.tenant,
            turn_id=live.id,
            attempt=live.attempt,
            model=selection.route.id,
            messages=[*choice.prompt.messages, *(told for one in live.rounds for told in one.messages())],
            parameters=parameters,
            intent=live.intent.name if live.intent else None,
            chain=tuple(route.id for route in routes[1:]),
            n=live.n,
            live=live.asked.live,
            stable=len(choice.prompt.messages) - (not choice.prompt.bare),
            session=self.key.conversation,
            weight=ground.settings.weight,
            prefix=live.prefix,
            clarification=doubt.question if live.understood and (doubt := live.understood.clarification) else None,
            products=self.products.seen.facts if self.products and _may_be_scripted(routes) else None,
            round=len(live.rounds),
            earlier=live.earlier,
        )

    async def _understand(self) -> None:
        """Classify the message; whatever goes wrong here costs the intent, never the turn."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.parts.limits.classify_timeout):
                content = self.live.asked.user_message.content
                understood = await self.parts.classifier.classify(content, self.key.tenant)
        except (BrainError, TimeoutError):
            return
        finally:
            self.marks["classify_ms"] = (time.monotonic() - began) * 1000
        self.live.intent, self.live.complexity = understood.intent, understood.complexity
        self.live.understood = understood
        self._embedding = understood.embedding
        if self._saying is not None:
            await asyncio.wait([self._saying])  # the opening stands before everything else
        told: dict[str, Any] = {"intent": understood.intent.model_dump()}
        if (doubt := understood.clarification) is not None:
            told["clarification"] = clarification_json(doubt)
        await self.say([(INTENT, told)])

    async def recalled(self) -> None:
        """Wait for what memory and catalogue have for this message: a moment, and no longer."""
        await asyncio.gather(*filter(None, (self._recalling, self._looking)), return_exceptions=True)

    async def _look_up(self, history: list[Remembered]) -> None:
        """Look for the products that the message is about. A slow classifier leaves that to the message's words."""
        asked, within = self.live.asked, self.parts.limits.products_timeout
        began = time.monotonic()
        self.parts.structures.hear(self.key.tenant)
        if self._understanding is not None:
            await asyncio.wait([self._understanding], timeout=within / 2)
        message = Message.of(asked.user_message.content, asked.order, history, self.live.understood)
        within -= time.monotonic() - began if self.live.understood is None else 0
        asking = time.monotonic()
        self.products = await look_up(self.parts, self.key, message, within)
        if self.products is not None:
            self.marks["products_ms"] = (time.monotonic() - asking) * 1000

    async def _recall(self) -> None:
        """Look for similar exchanges; whatever goes wrong here costs the prompt these, never the turn."""
        limits, began = self.parts.limits, time.monotonic()
        text = self.live.asked.user_message.content
        try:
            async with asyncio.timeout(limits.recall_timeout):
                if self._understanding is not None:  # it embeds the text; a slow one is not waited for
                    await asyncio.wait([self._understanding], timeout=limits.recall_timeout / 3)
                user = self.window.conversation.user_id or ""
                found = await self.parts.memory.similar(self.key, user, text, self._embedding, limits.recalled)
            self.material = (Material.similar(found),) if found else ()
        except (BrainError, TimeoutError):
            return
        except Exception:
            log.exception("the memory failed", extra={"turn_id": self.live.id})
        finally:
            self.marks["recall_ms"] = (time.monotonic() - began) * 1000

    async def _understood(self) -> None:
        if self._understanding is not None:
            await asyncio.gather(self._understanding, return_exceptions=True)


def _may_be_scripted(routes: Sequence[Route]) -> bool:
    return any(route.provider.kind == SCRIPTED for route in routes)
