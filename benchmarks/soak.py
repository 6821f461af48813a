"""`python -m benchmarks soak`: a steady mixed load for a long time, and whether anything that is held creeps.

Turns that are streamed, broken off and resumed, cancelled; conversations that are read, deleted, and go idle. Every ten
seconds memory, file descriptors, threads, connections, tables and keys are read; the second half decides.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from benchmarks.soak_samples import Sampler
from benchmarks.systems import brain, mock
from benchmarks.systems.brain import Brain
from benchmarks.trend import Trend, trend

MODEL = "mock,n=24,itl=20"
CONVERSATIONS = 100  # that are talked to in turns; one that is taken away is replaced
AT_ONCE = 200
IDLE_S = "20"
KINDS = {"stream": 60, "resume": 15, "cancel": 10, "delete": 10, "read": 5}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=5, help="requests a second (5)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples (10)")
    parser.add_argument("--output", type=Path, default=Path(".bench/soak.json"), help="all samples, as JSON")
    parser.set_defaults(run=soak)


def soak(chosen: argparse.Namespace, console: Console) -> None:
    """Load, sample, judge; the samples are written as they come."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name,
        mock.start(Path(name)) as provider,
        brain.start(provider, Path(name), env={"BRAIN_HOST_IDLE_S": IDLE_S}) as service,
    ):
        samples, answers = run(_soak(service, chosen))
    trends = judged(samples)
    table = Table("held", "median", "growth in the 2nd half", "verdict")
    for one in trends:
        verdict = {None: "", True: "CREEPS", False: "steady"}[one.creeps]
        table.add_row(one.name, f"{one.median:,.1f}", f"{one.growth:+,.1f}", verdict)
    console.print(table)
    console.print(", ".join(f"{what}: {number}" for what, number in sorted(answers.items())))
    console.print(facts.line(facts.machine()))
    if any(one.creeps for one in trends):
        raise SystemExit(1)


def judged(samples: list[dict[str, float]]) -> list[Trend]:
    """Every series of the samples; what was not there at a time was none."""
    times = [sample["at"] for sample in samples]
    names = sorted({name for sample in samples for name in sample} - {"at"})
    return [trend(name, times, [sample.get(name, 0.0) for sample in samples]) for name in names]


async def _soak(service: Brain, chosen: argparse.Namespace) -> tuple[list[dict[str, float]], Counter[str]]:
    began, samples = time.monotonic(), list[dict[str, float]]()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    timeout, connector = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(service.url, headers=service.headers, timeout=timeout, connector=connector) as session,
        Sampler(service) as sampler,
    ):
        load = Mixed(session)
        ends = began + chosen.minutes * 60
        loading = asyncio.create_task(load.run(chosen.rate, ends))
        while time.monotonic() < ends and not loading.done():
            samples.append({"at": time.monotonic() - began, **await sampler.sample()})
            chosen.output.write_text(json.dumps(samples))
            await asyncio.sleep(chosen.every)
        await loading
    return samples, load.answers


class Unfinished(Exception):
    """A stream ended without what was waited for; its last event is named."""

    def __init__(self, seen: bytes) -> None:
        named = seen.rpartition(b"event: ")[2].split(b"\n", 1)[0].decode()
        super().__init__(f"ended with {named or 'nothing'}")


class Mixed:
    """The load. `answers` counts what was done by kind, and what went wrong by status or error."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.answers: Counter[str] = Counter()
        self._drawn = random.Random(1)
        self._idle: list[str] = []
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, ends: float) -> None:
        """Poisson arrivals until `ends` (monotonic), then wait for what is open."""
        while time.monotonic() < ends:
            await asyncio.sleep(self._drawn.expovariate(rate))
            if len(self._open) >= AT_ONCE:
                self.answers["not sent"] += 1
                continue
            kind = self._drawn.choices(list(KINDS), list(KINDS.values()))[0]
            task = asyncio.create_task(self._one(kind))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        await asyncio.gather(*self._open)

    async def _one(self, kind: str) -> None:
        deeds: dict[str, Any] = {"stream": self._stream, "resume": self._resume, "cancel": self._cancel}
        deeds |= {"delete": self._delete, "read": self._read}
        try:
            conversation = await self._conversation()
            kept: Coroutine[Any, Any, bool] = deeds[kind](conversation)
            if await kept and len(self._idle) < CONVERSATIONS:
                self._idle.append(conversation)
            self.answers[kind] += 1
        except aiohttp.ClientResponseError as error:
            self.answers[f"{kind}: {error.status}"] += 1
        except Unfinished as error:
            self.answers[f"{kind}: {error}"] += 1
        except (aiohttp.ClientError, TimeoutError, LookupError, ValueError) as error:
            self.answers[f"{kind}: {type(error).__name__}"] += 1

    async def _conversation(self) -> str:
        if len(self._idle) >= CONVERSATIONS // 2:
            return self._idle.pop(self._drawn.randrange(len(self._idle)))
        async with self._session.post("/api/v1/conversations", json={}, raise_for_status=True) as answer:
            return str((await answer.json())["id"])

    async def _send(self, conversation: str, until: bytes) -> str:
        """The id of the last event that was read; leaves when `until` has come."""
        body = {"content": "Where is my order?", "model": MODEL, "stream": True}
        path, seen = f"/api/v1/conversations/{conversation}/messages", b""
        async with self._session.post(path, json=body, raise_for_status=True) as answer:
            async for piece in answer.content.iter_any():
                seen += piece
                if until in seen:
                    break
            else:
                raise Unfinished(seen)
        whole = seen[: seen.rindex(b"\n\n")] if b"\n\n" in seen else seen
        return whole[whole.rindex(b"id: ") + 4 :].split(b"\n", 1)[0].decode()

    async def _stream(self, conversation: str) -> bool:
        await self._send(conversation, b"event: turn.completed")
        return True

    async def _resume(self, conversation: str) -> bool:
        last = await self._send(conversation, b"event: message.delta")
        path = f"/api/v1/turns/{last.split('/')[0]}/events"
        async with self._session.get(path, headers={"last-event-id": last}, raise_for_status=True) as answer:
            if b"event: turn.completed" not in (rest := await answer.read()):
                raise Unfinished(rest)
        return True

    async def _cancel(self, conversation: str) -> bool:
        last = await self._send(conversation, b"event: message.delta")
        async with self._session.post(f"/api/v1/turns/{last.split('/')[0]}/cancel", raise_for_status=True):
            return True

    async def _delete(self, conversation: str) -> bool:
        await self._stream(conversation)
        async with self._session.delete(f"/api/v1/conversations/{conversation}", raise_for_status=True):
            return False

    async def _read(self, conversation: str) -> bool:
        path = f"/api/v1/conversations/{conversation}/messages"
        async with self._session.get(path, raise_for_status=True) as answer:
            await answer.read()
        return self._drawn.random() < 0.9
