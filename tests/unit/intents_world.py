"""Intents without Ray: a real trainer, real classifiers and the real database, over an embedder of words."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.intent_classifier import IntentClassifier
from deployments.intent_trainer import IntentTrainer
from deployments.states import States
from deployments.training_job import Load
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import Unavailable
from storage.intent_heads import PostgresHeads
from storage.intent_trainings import PostgresTrainings
from storage.postgres import Pool
from tests.unit.understanding.toy import states_of

DIMENSIONS = 1024
SHARED = (
    "greeting: [hello there, hi friend, hello, hi there, hello friend]\n"
    "payment: [pay by card, my invoice, pay my invoice, card payment, pay by invoice]\n"
    "other: [a poem, the weather, write a poem, weather, a long poem]\n"
)
REFUND = ["refund my order", "i want a refund", "money back please", "give my money back", "refund it now"]
PARCEL = ["where is my parcel", "parcel tracking", "track my parcel", "parcel not here", "has the parcel shipped"]
HOURS = ["when do you open", "opening hours", "are you open sunday", "when do you close", "open today"]


class Words:
    """A text is the words that it holds. `away`: does not answer. `hold`: answers once it is set; `hold_states`: where
    it is asked for states.
    """

    def __init__(self, revision: str = "1") -> None:
        self.revision, self.away = revision, False
        self.hold: asyncio.Event | None = None
        self.hold_states: asyncio.Event | None = None
        self.asked: list[str] = []
        self.stated: list[str] = []

    async def embed(self, text: str) -> Embedding:
        return (await self.embed_many([text]))[0]

    async def embed_many(self, texts: Sequence[str]) -> list[Embedding]:
        self.asked += texts
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise Unavailable("no embedder")
        return [_vector(text) for text in texts]

    async def embed_with_states(self, texts: Sequence[str], *, urgent: bool = True) -> list[tuple[Embedding, States]]:
        self.stated += texts
        if self.hold_states is not None:
            await self.hold_states.wait()
        return list(zip([_vector(text) for text in texts], states_of(texts), strict=True))

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    async def describe(self) -> EmbedderInfo:
        return EmbedderInfo("words", DIMENSIONS, 256, self.revision)


def _vector(text: str) -> list[float]:
    vector = np.full(DIMENSIONS, 0.01)
    for word in re.findall(r"\w+", text.lower()):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % DIMENSIONS] += 1
    found: list[float] = (vector / np.linalg.norm(vector)).tolist()
    return found


@dataclass
class Understanders:
    """Two replicas of the classifier, and a trainer that runs."""

    embedder: Words
    replicas: list[IntentClassifier]
    trainer: IntentTrainer
    trainings: PostgresTrainings
    heads: PostgresHeads

    async def version_everywhere(self, tenant: str, version: int) -> None:
        async with asyncio.timeout(10):
            for replica in self.replicas:
                while (await replica.classify("hello", tenant)).version != version:
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def understanders(pool: Pool, folder: Path, load: Load | None = None) -> AsyncIterator[Understanders]:
    """`load`: gives the last layers of the embedder's model, which can be tuned."""
    examples = folder / "shared.yaml"
    examples.write_text(SHARED)
    embedder, trainings, heads = Words(), PostgresTrainings(pool), PostgresHeads(pool)
    replicas = [IntentClassifier(embedder, heads=heads, examples=examples) for _ in range(2)]
    trainer = IntentTrainer(trainings, heads, embedder, tail_of=lambda name: load, poll=0.1, nice=0)
    trainer.start()
    yield Understanders(embedder, replicas, trainer, trainings, heads)
    await trainer.close()
    for replica in replicas:
        await replica.close()


def examples_json(**intents: list[str]) -> list[dict[str, Any]]:
    return [{"text": text, "intent": name} for name, texts in intents.items() for text in texts]
