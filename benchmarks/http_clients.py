"""aiohttp and httpx as clients of a provider that streams: `python -m benchmarks.http_clients`.

The same server, the same streams, the same parser; only the client differs.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import httpx
import orjson

from deployments.providers.sse import EventParser

STREAMS, REPLIES = 64, 4
BURST, PACED = "mock,n=200", "mock,n=100,ttft=5,itl=10"


def body(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def with_aiohttp(session: aiohttp.ClientSession, url: str, model: str) -> AsyncIterator[bytes]:
    async with session.post(url, json=body(model)) as response:
        while chunk := await response.content.readany():
            yield chunk


async def with_httpx(client: httpx.AsyncClient, url: str, model: str) -> AsyncIterator[bytes]:
    async with client.stream("POST", url, json=body(model)) as response:
        async for chunk in response.aiter_raw():
            yield chunk


async def measure(stream: Callable[[str], AsyncIterator[bytes]], model: str) -> tuple[float, float]:
    """Tokens a second and CPU seconds of this process for 1,000 tokens."""

    async def one() -> int:
        tokens = 0
        for _ in range(REPLIES):
            parser = EventParser()
            async for chunk in stream(model):
                for data in parser.feed(chunk):
                    if data != b"[DONE]":
                        tokens += bool(orjson.loads(data)["choices"][0]["delta"].get("content"))
        return tokens

    await asyncio.gather(*(one() for _ in range(STREAMS)))  # connections are open, caches warm
    started, cpu = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*(one() for _ in range(STREAMS))))
    return tokens / (time.perf_counter() - started), (time.process_time() - cpu) / tokens * 1000


async def compare(url: str) -> None:
    limits = httpx.Limits(max_connections=STREAMS, max_keepalive_connections=STREAMS)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=STREAMS)) as session,
        httpx.AsyncClient(limits=limits, timeout=60) as client,
    ):
        print(f"{STREAMS} streams at once, {REPLIES} replies each")
        for model in (BURST, PACED):
            a = await measure(lambda model: with_aiohttp(session, url, model), model)
            x = await measure(lambda model: with_httpx(client, url, model), model)
            print(f"{model}: aiohttp {a[0]:,.0f} tokens/s, {a[1]:.4f} CPU s/1,000; ", end="")
            print(f"httpx {x[0]:,.0f} tokens/s, {x[1]:.4f} CPU s/1,000; CPU ratio {x[1] / a[1]:.1f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        command = [sys.executable, "-m", "benchmarks.mock_provider", "--port", "0", "--ready-file", str(ready)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            while not ready.exists() and server.poll() is None:
                time.sleep(0.05)
            asyncio.run(compare(orjson.loads(ready.read_bytes())["url"] + "/chat/completions"))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
