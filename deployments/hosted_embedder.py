"""Texts as vectors by a provider's API: the same port as the local embedder's, over `POST {url}/embeddings`.

https://platform.openai.com/docs/api-reference/embeddings, as many servers speak it.
"""

import asyncio
import contextvars
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import orjson

from deployments.batching import Batches
from deployments.embedding_answers import read_answer
from deployments.providers import ProviderFailure, resolve_key
from deployments.providers.http import MAX_BODY, HttpPool, read_at_most
from domain.context import estimate_tokens
from domain.embedding import EmbedderInfo
from domain.errors import Overloaded, Unavailable
from domain.model import Provider, Timeouts

MAX_CHARACTERS = 8000  # of a text: below 8,191 tokens, OpenAI's limit, wherever a character is no more than one token
SHORTEST = 64  # characters; a provider that refuses this much refuses something else
TOO_LONG = frozenset({400, 413, 422})  # by which servers refuse what exceeds their window
MOST_REFUSALS = 32  # of a batch: one text too long needs 13
MAX_PAUSE = 20.0  # seconds between two tries; a provider that asks for more has failed

Found = list[float] | ProviderFailure


def provider_at(url: str, key: str | None) -> Provider:
    """Where embeddings come from; `key`: `${NAME}` of the environment variable that holds it."""
    return Provider(name="embeddings", base_url=url, key=key, retries=3, timeouts=Timeouts(total=15))


class OnLoop(Executor):
    """Runs what `work` returns, a coroutine, on the caller's event loop, for `Batches`: nothing here needs a thread."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work(*arguments), asyncio.get_running_loop())


class HostedEmbedder:
    """Embeds texts by calls that each take what waits; `lanes` of them run at once, and bulk has one of its own.

    `provider`: where, and by which key; its `timeouts.total` bounds one call, its `retries` the further tries.
    `dimensions`: how many are asked for and must come; without, those of the first answer hold from then on.
    `max_waiting`: texts at once, beyond which a call is refused.
    """

    def __init__(
        self,
        provider: Provider,
        model: str,
        *,
        dimensions: int | None = None,
        lanes: int = 4,
        max_batch_size: int = 64,
        max_waiting: int = 4096,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider, self._model, self._dimensions = provider, model, dimensions
        self._encoding, self._asked = "base64", dimensions
        self._sleep, self._chance = sleep, chance
        self._pool = HttpPool()
        self._lanes: list[Batches[str, Found]] = [
            Batches(self._start, OnLoop(), max_batch_size, bulk=max_batch_size)  # type: ignore[arg-type]
            for _ in range(lanes + 1)
        ]
        self._waiting, self._max_waiting = [0] * (lanes + 1), max_waiting
        self._info: EmbedderInfo | None = None
        self._preparing: asyncio.Task[EmbedderInfo] | None = None

    async def embed(self, text: str) -> list[float]:
        """`text` as a vector: float32, (dimensions,), unit length. What exceeds the model's window is left out.

        Raises `Unavailable` if the provider fails, and `Overloaded` if too many texts wait.
        """
        await self.describe()
        self._admit(1)
        return await self._run(text, min(range(1, len(self._lanes)), key=self._waiting.__getitem__))

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """`texts` as vectors, in order. Messages that arrive meanwhile do not wait for them."""
        if not texts:
            return []
        await self.describe()
        self._admit(len(texts))
        return await asyncio.gather(*(self._run(text, 0) for text in texts))

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """An estimate of how many tokens the model reads of `texts`: the provider only tells the sum of a batch."""
        return sum(estimate_tokens(_readable(text)) for text in texts)

    async def describe(self) -> EmbedderInfo:
        """What the first answer told; the first call asks the provider. Raises `Unavailable`."""
        if self._info is None:
            if self._preparing is None or self._preparing.done():
                self._preparing = asyncio.create_task(self._prepare(), context=contextvars.Context())
            self._info = await asyncio.shield(self._preparing)
        return self._info

    async def check_health(self) -> None:
        """Raises `Unavailable` until the provider has answered once as configured; what it does later is not ours."""
        await self.describe()

    async def close(self) -> None:
        await self._pool.close()

    async def _prepare(self) -> EmbedderInfo:
        try:
            probe, name = await self._call(["the same text for every model"])
        except ProviderFailure as failure:
            raise Unavailable(f"the embedder's {failure}") from failure
        self._dimensions = len(probe[0])
        told = f"{self._provider.base_url}\0{self._model}\0{name}\0{self._dimensions}"
        revision = hashlib.sha256(told.encode()).hexdigest()[:16]  # not of the vector: the same text varies a little
        return EmbedderInfo(self._model, self._dimensions, MAX_CHARACTERS // 4, revision)

    def _admit(self, texts: int) -> None:
        if sum(self._waiting) + texts > self._max_waiting:
            raise Overloaded("too many texts wait to be embedded")

    async def _run(self, text: str, lane: int) -> list[float]:
        self._waiting[lane] += 1
        try:
            found = await self._lanes[lane].run(_readable(text), urgent=lane > 0)
            if isinstance(found, ProviderFailure):
                raise found
            return found
        except ProviderFailure as failure:
            raise Unavailable(f"the embedder's {failure}") from failure
        finally:
            self._waiting[lane] -= 1

    def _start(self, texts: Sequence[str]) -> Coroutine[Any, Any, list[Found]]:
        """A plain function, because uvloop, which runs replicas, refuses coroutine functions here."""
        return self._embed(texts)

    async def _embed(self, texts: Sequence[str]) -> list[Found]:
        """One batch. If the provider refuses it, its halves, and of a single text what it accepts of its beginning."""
        found: dict[int, Found] = {}
        groups, refusals = [list(enumerate(texts))], 0
        while groups:
            group = groups.pop()
            try:
                vectors, _ = await self._call([text for _, text in group])
            except ProviderFailure as failure:
                if failure.status not in TOO_LONG:
                    raise
                refusals += 1
                smaller = _smaller(group) if refusals < MOST_REFUSALS else []
                groups += smaller
                if not smaller:
                    found |= {place: failure for place, _ in group}
            else:
                found |= {place: vector for (place, _), vector in zip(group, vectors, strict=True)}
        return [found[place] for place in range(len(texts))]

    async def _call(self, texts: Sequence[str]) -> tuple[list[list[float]], str]:
        """The vectors and the model's name in the answer, after as many tries as it takes and may take."""
        tries = 0
        while True:
            try:
                return await self._post(texts)
            except ProviderFailure as failure:
                if failure.status in TOO_LONG and self._encoding == "base64" and self._info is None:
                    self._encoding = "float"  # an older server: it tells before the first answer
                    continue
                tries += 1
                asked = failure.retry_after or 0.0
                if not failure.retryable or tries > self._provider.retries or asked > MAX_PAUSE:
                    raise
            # what the provider asked for, or longer by chance, so that replicas do not come back together
            await self._sleep(min(MAX_PAUSE, asked + self._chance() * min(0.25 * 2**tries, 8.0)))

    async def _post(self, texts: Sequence[str]) -> tuple[list[list[float]], str]:
        key = resolve_key(self._provider)
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": self._encoding}
        if self._asked is not None:
            body["dimensions"] = self._asked
        name, limit = f"provider {self._provider.name!r}", self._provider.timeouts.total
        try:
            async with (
                asyncio.timeout(limit),
                self._pool.call(self._provider, "POST", "/embeddings", headers, orjson.dumps(body), key) as response,
            ):
                raw = await read_at_most(response, MAX_BODY)
        except TimeoutError:
            raise ProviderFailure(f"{name} did not answer within {limit:g} s", retryable=True, timed_out=True) from None
        try:
            return read_answer(raw, len(texts), self._dimensions)
        except ValueError as error:
            raise ProviderFailure(f"{name} sent a malformed answer: {error}") from None


def _smaller(group: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """The halves of a group, or of a single text its first half; nothing if that is too little to be too long."""
    half = len(group) // 2
    if half:
        return [group[half:], group[:half]]
    place, text = group[0]
    return [[(place, text[: len(text) // 2])]] if len(text) >= 2 * SHORTEST else []


def _readable(text: str) -> str:
    """Lone surrogates would fail the whole batch, and servers refuse an empty text."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode() or " "
