"""A strict double of OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings/create."""

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web
from openai.types import EmbeddingCreateParams

from tests.doubles.conforms import check

KEY = "key-hunter2"
WORD = 4  # characters a token


@dataclass(frozen=True)
class Fault:
    """What one call gets instead of its vectors: an HTTP error, this body with status 200, vectors of another size, a
    reset after half of the body, or nothing at all until the test ends.
    """

    status: int = 200
    message: str = "it broke"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    size: int | None = None
    cut: bool = False
    hang: bool = False


@dataclass
class EmbeddingsDouble:
    """`native`: dimensions of a model that is asked for none. `window`: tokens of a text, beyond which it is refused.

    `calls`: the bodies that were accepted; `faults`: what the next calls get; `open`: cleared, it holds calls back.
    """

    native: int = 8
    window: int = 100
    float_only: bool = False
    poison: str | None = None
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    arrived: int = 0
    at_once: int = 0
    most_at_once: int = 0
    faults: deque[Fault] = field(default_factory=deque)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["EmbeddingsDouble"]:
        self.open.set()
        app = web.Application()
        app.router.add_post("/v1/embeddings", self.embeddings)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            self.ended.set()
            await runner.cleanup()

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        self.arrived += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        if authorization != f"Bearer {KEY}":
            return error(401, f"Incorrect API key provided: {authorization}")
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.hang:
            await self.ended.wait()
        if fault.status != 200:
            return error(fault.status, fault.message, fault.headers)
        try:
            body = await request.json()
            check(body, EmbeddingCreateParams)
            texts = self._texts(body)
        except ValueError as wrong:
            return error(400, str(wrong))
        await self.open.wait()
        self.calls.append(body)
        if fault.body is not None:
            return web.Response(body=fault.body, content_type="application/json")
        size = fault.size or body.get("dimensions", self.native)
        answer = web.json_response(whole(texts, body, size))
        if fault.cut:
            return await cut(request, answer)
        return answer

    def _texts(self, body: dict[str, Any]) -> list[str]:
        """What the types do not say. Raises ValueError."""
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        must(all(isinstance(text, str) for text in texts), "input: this double takes text")
        must(1 <= len(texts) <= 2048, "input: between 1 and 2048")
        must(all(texts), "input: cannot be an empty string")
        must(max(map(len, texts)) <= self.window * WORD, f"maximum context length is {self.window} tokens")
        must(self.poison is None or self.poison not in texts, "input was refused")
        must(1 <= body.get("dimensions", 1) <= 3072, "dimensions: out of range")
        must(not self.float_only or body.get("encoding_format") != "base64", "encoding_format: not supported")
        return texts


def whole(texts: list[str], body: dict[str, Any], size: int) -> dict[str, Any]:
    """The answer; vectors are in reverse order, which `index` tells, and not of unit length."""
    data = [
        {"object": "embedding", "index": index, "embedding": encoded(vector_of(text, size), body)}
        for index, text in enumerate(texts)
    ]
    tokens = sum(len(text) // WORD + 1 for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data[::-1], "model": f"{body['model']}-2026", "usage": usage}


def vector_of(text: str, size: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The same text gives the same vector, of length 2: a base, and the text's own part."""
    raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(size), np.uint8).astype(np.float64) / 127.5 - 1
    return (2 * raw / np.linalg.norm(raw)).astype(np.float32)


def encoded(vector: "np.ndarray[Any, np.dtype[np.float32]]", body: dict[str, Any]) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


async def cut(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Half of the body, then a reset."""
    raw = bytes(answer.body)  # type: ignore[arg-type]
    stream = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(raw))})
    await stream.prepare(request)
    await stream.write(raw[: len(raw) // 2])
    assert request.transport is not None
    request.transport.abort()
    return stream


def must(right: bool, words: str) -> None:
    if not right:
        raise ValueError(words)


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)
