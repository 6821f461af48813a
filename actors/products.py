"""The products of a turn: whether its message needs any, and what the catalogue says of them, within a deadline."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.parts import Parts
from domain.clarifying import OTHER
from domain.context import Material, Remembered
from domain.conversation import ConversationKey
from domain.errors import BrainError
from domain.ports import Understanding
from domain.product_cues import follows, other_matter, plainly
from domain.product_facts import material_of, no_facts
from domain.product_query import Reading
from domain.product_reading import MOST_TURNS, read
from domain.product_search import ProductSearch, Seen, wish_of

log = logging.getLogger("brain.products")
SURE = 0.6  # an intent at least this probable, which needs no products, is believed against the words of the message


@dataclass(frozen=True, slots=True)
class Message:
    """A message and what was said before it. `understood`: None where nothing classified it."""

    text: str
    earlier: tuple[str, ...] = ()
    last_answer: str = ""
    understood: Understanding | None = None

    @classmethod
    def of(cls, text: str, order: int, history: Sequence[Remembered], understood: Understanding | None) -> "Message":
        """`history` is in order of turns and may hold the message itself."""
        before = sorted((one for one in history if one.order < order), key=lambda one: (one.order, one.seq))
        users = tuple(one.content for one in before if one.role == "user")
        answers = [one.content for one in before if one.role == "assistant"]
        return cls(text, users[-MOST_TURNS:], answers[-1] if answers else "", understood)

    @property
    def may_need(self) -> bool:
        """By its intent and its words, before anything is asked. An intent that is sure is believed, but for words that
        go on from what was said of products."""
        if self._by_intent:
            return True
        return not other_matter(self.text) and (not self._sure or (follows(self.text) and bool(self.earlier)))

    @property
    def needs_surely(self) -> bool:
        """Where the catalogue's words are not known: only what is plain without them."""
        return self._by_intent or (not self._sure and plainly(self.text))

    def needs(self, reading: Reading) -> bool:
        """Now that it was read with the catalogue's words: where no intent says so, it has to name something."""
        if self._by_intent:
            return True
        if reading.before is not None and reading.follows:
            return bool(reading.wishes or reading.bounds or reading.cheaper or reading.refers is not None)
        if self._sure:
            return False
        named = reading.category or reading.ids or reading.sides
        return bool(named or (plainly(self.text) and (reading.wishes or reading.words)))

    @property
    def _by_intent(self) -> bool:
        return self.understood is not None and self.understood.needs_products

    @property
    def _sure(self) -> bool:
        one = self.understood
        return one is not None and not one.out_of_scope and one.intent.name != OTHER and one.intent.confidence >= SURE


@dataclass(frozen=True, slots=True)
class Products:
    """What a turn knows of products. `problem`: why they could not be seen."""

    seen: Seen
    problem: str | None = None

    @property
    def material(self) -> Material:
        return material_of(self.seen.facts, self.seen.products)

    def told(self) -> dict[str, Any]:
        """As the trace tells it."""
        facts = self.seen.facts
        told: dict[str, Any] = {
            "kind": facts["kind"],
            "wish": facts["wish"],
            "found": 0 if facts["nearest"] else len(self.seen.products),
            "nearest": facts["nearest"],
            "total": facts["total"],
            "searches": self.seen.searches,
        }
        if self.problem is not None:
            told["problem"] = self.problem
        if facts["stale"]:
            told["stale_s"] = round(facts["stale"], 1)
        return told

    def sources(self, cited: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "type": "product",
                "id": one.id,
                "title": one.title,
                "score": round(self.seen.scores.get(one.id, 0.0), 4),
                "cited": one.id in cited,
            }
            for one in self.seen.products
        ]


async def look_up(parts: Parts, key: ConversationKey, message: Message, within: float) -> Products | None:
    """What the catalogue has for the message, or why it has nothing; None where the message needs no products, or the
    tenant has none.

    `within`: seconds. Whatever goes wrong here costs the turn its products, never more: a message that is not surely
    about products goes without a word of a catalogue that cannot be seen.
    """
    catalogue = parts.products
    if catalogue is None or not message.may_need:
        return None
    began = time.monotonic()
    wish, kind, needed = "", "list", False
    try:
        async with asyncio.timeout(within):
            lexicon = await parts.structures.lexicon(key.tenant)
            if not lexicon.structure.total:
                return None
            reading = read(message.text, lexicon, message.earlier)
            if not message.needs(reading):
                return None
            wish, kind, needed = wish_of(reading), reading.kind, True
            search = ProductSearch(catalogue, key.tenant, _vector(message), message.last_answer, parts.limits.products)
            return Products(await search.seen(reading, lexicon))
    except TimeoutError:
        problem = f"the catalogue took longer than {time.monotonic() - began:.2f} s"
    except BrainError as error:
        problem = str(error)
    except Exception:
        log.exception("the catalogue failed", extra={"tenant": key.tenant})
        problem = "the catalogue failed"
    if parts.structures.had_none(key.tenant) or not (needed or message.needs_surely):
        return None
    return Products(Seen(no_facts(kind, wish, unseen=True)), problem)


def _vector(message: Message) -> Sequence[float] | None:
    return message.understood.embedding if message.understood is not None else None
