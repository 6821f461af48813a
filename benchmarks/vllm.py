"""`python -m benchmarks vllm`: a local model through the whole service, and through ray.serve.llm's own OpenAI app.

The model is that of tests/tiny_llama.py, on this CPU. Both systems stand all the while and are asked in turns, a few
seconds each, while the other one sleeps: what else a machine does changes its speed by the minute, so ratios are those
of neighbours. The clients are those of a chat: each holds a conversation of a few turns, which the service keeps and
the app is sent whole.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import run
from benchmarks.process_tree import asleep, below, started
from benchmarks.systems import free_port, serve_llm
from benchmarks.targets import data_of

SERVICE, UNKEPT, APP = "the service", "the service, nothing kept", "ray.serve.llm's OpenAI app"
TURNS = 4  # of a conversation


@dataclass(slots=True)
class Reply:
    """Seconds of the monotonic clock, and what the system counted."""

    started: float
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    prompt: int = 0
    cached: int = 0
    text: str = ""


@dataclass(slots=True)
class Endpoint:
    """An OpenAI-compatible base URL; with `conversations`, the conversation is kept there and not sent again."""

    url: str
    key: str = ""
    conversations: str | None = None
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One system in one round."""

    tokens_per_s: float
    first_p50_ms: float
    first_p99_ms: float
    reply_p50_ms: float
    cached_share: float
    replies: int


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of a reply")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8, help="measured time of a system in a round")
    parser.add_argument("--warm-up", type=float, default=3)
    parser.add_argument(
        "--spread", type=float, default=1, help="seconds over which the clients begin; with 0 they march in step"
    )
    parser.add_argument(
        "--affinity", action="store_true", help="instead: two replicas, conversations routed by session and by prefix"
    )
    parser.set_defaults(run=measure)


def measure(chosen: argparse.Namespace, console: Console) -> None:
    """What was asked for."""
    (affinity if chosen.affinity else compare)(chosen, console)


def affinity(chosen: argparse.Namespace, console: Console) -> None:
    """How much of the prompts two replicas find in their caches, with each of the two routers."""
    from tests.tiny_llama import tiny_llama

    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        model = local_model(tiny_llama(folder / "model"))
        for routing in ("session", "prefix"):
            own = folder / routing
            own.mkdir(mode=0o755)
            options = {**model["vllm"], "routing": routing, "scaling": {"min_replicas": 2, "max_replicas": 2}}
            with service(own, [{**model, "vllm": options}]) as (url, key):
                console.print(routing, run(load(Endpoint(f"{url}/v1", key, f"{url}/api/v1/conversations"), chosen)))


def compare(chosen: argparse.Namespace, console: Console) -> None:
    """Rounds of both systems, in turns; medians over the rounds, and of the service's ratios to the app in each."""
    from tests.tiny_llama import tiny_llama

    figures: dict[str, list[Figures]] = {SERVICE: [], UNKEPT: [], APP: []}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        model = local_model(tiny_llama(folder / "model"))
        before = set(below())
        with contextlib.ExitStack() as stack:
            url, key = stack.enter_context(service(folder, [model]))
            ours = set(below()) - before
            app = stack.enter_context(serve_llm.start(folder, model))
            theirs = set(below()) - before - ours
            endpoints = {
                SERVICE: Endpoint(f"{url}/v1", key, f"{url}/api/v1/conversations"),
                UNKEPT: Endpoint(f"{url}/v1", key),
                APP: Endpoint(app),
            }
            for number in range(chosen.rounds):
                for system in [*figures][:: 1 if number % 2 == 0 else -1]:
                    with asleep(ours if system == APP else theirs):
                        figures[system].append(run(load(endpoints[system], chosen)))
                    console.print(system, figures[system][-1])
    console.print(table(figures))


def local_model(source: Path) -> dict[str, Any]:
    """The catalog's entry, for both systems."""
    engine = {"max_model_len": 8192, "dtype": "bfloat16", "max_num_seqs": 64}
    options = {"source": str(source), "accelerator": "cpu", "num_cpus": 0.5, "engine": engine}
    return {"id": "tiny", "context_tokens": 8192, "max_output_tokens": 512, "vllm": options}


@contextlib.contextmanager
def service(folder: Path, models: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """`brain up` with these models; its URL and key."""
    provider = {"name": "local", "kind": "vllm", "timeouts": {"first_token": 300}, "models": models}
    config, ready = folder / "vllm.yaml", folder / "brain.ready"
    config.write_text(json.dumps({"providers": [provider], "routing": {"default": models[0]["id"]}}))  # JSON is YAML
    command = [sys.executable, "-m", "serve_app.cli", "up", "--port", str(free_port()), "--config", str(config)]
    command += ["--data", str(folder / "brain"), "--ready-file", str(ready)]

    def is_ready() -> bool:
        return ready.exists() and ready.read_text().rstrip().endswith("}")

    with started(command, log=folder / "brain.log", ready=is_ready, start_s=400):
        said = json.loads(ready.read_text())
        yield said["url"].rstrip("/"), said["api_key"]


async def load(endpoint: Endpoint, chosen: argparse.Namespace) -> Figures:
    """Clients in a closed loop. Rates by what arrived in the window, latencies of replies that began in it."""
    replies: list[Reply] = []
    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, read_bufsize=2**20) as session:
        async for _ in conversation(session, endpoint, 0, 8, lambda: True):
            pass  # the first answers import and compile: tens of seconds
        opens = _now() + chosen.warm_up
        closes = opens + chosen.seconds

        async def client(number: int) -> None:
            await asyncio.sleep(chosen.spread * number / chosen.clients)
            while _now() < closes:
                async for reply in conversation(session, endpoint, number, chosen.tokens, lambda: _now() < closes):
                    replies.append(reply)

        await asyncio.gather(*(client(number) for number in range(chosen.clients)))
    began = [reply for reply in replies if opens <= reply.started < closes]
    tokens = sum(reply.tokens * _share(reply, opens, closes) for reply in replies)
    first = sorted((reply.first - reply.started) * 1000 for reply in began)
    return Figures(
        tokens_per_s=tokens / chosen.seconds,
        first_p50_ms=statistics.median(first),
        first_p99_ms=first[int(len(first) * 0.99)],
        reply_p50_ms=statistics.median((reply.ended - reply.started) * 1000 for reply in began),
        cached_share=sum(reply.cached for reply in began) / sum(reply.prompt for reply in began),
        replies=len(began),
    )


async def conversation(
    session: aiohttp.ClientSession, endpoint: Endpoint, client: int, tokens: int, going: Callable[[], bool]
) -> Any:
    """Its replies, one after another."""
    headers, history = dict(endpoint.headers), []
    if endpoint.conversations is not None:
        async with session.post(endpoint.conversations, headers=headers, data=b"{}") as answer:
            headers["x-conversation-id"] = (await answer.json())["id"]
    for turn in range(TURNS):
        if not going():
            return
        history.append({"role": "user", "content": f"Client {client}, question {turn}: where is my order?"})
        kept = endpoint.conversations is not None
        body = {"model": "tiny", "messages": history[-1:] if kept else history, "max_tokens": tokens, "stream": True}
        body["stream_options"] = {"include_usage": True}
        reply = await ask(session, endpoint.url, headers, orjson.dumps(body))
        if reply.tokens != tokens:
            raise RuntimeError(f"{reply.tokens} tokens instead of {tokens}: {reply.text[:100]!r}")
        history.append({"role": "assistant", "content": reply.text})
        yield reply


async def ask(session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes) -> Reply:
    """One streamed reply; raises RuntimeError where it is not whole."""
    reply, rest, done = Reply(_now()), b"", False
    async with session.post(f"{url}/chat/completions", headers=headers, data=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {(await answer.read())[:300]!r}")
        async for piece in answer.content.iter_any():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                data = data_of(event)
                done = done or data == b"[DONE]"
                if data.startswith(b"{"):
                    _take(reply, orjson.loads(data))
    reply.ended = _now()
    if not done:
        raise RuntimeError(f"the stream broke off after {reply.text[-100:]!r}")
    return reply


def _take(reply: Reply, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise RuntimeError(str(chunk["error"]))
    for choice in chunk["choices"]:
        text = choice["delta"].get("content") or ""
        if text and not reply.first:
            reply.first = _now()
        reply.text += text
    if usage := chunk.get("usage"):
        reply.tokens, reply.prompt = usage["completion_tokens"], usage["prompt_tokens"]
        reply.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def _share(reply: Reply, opens: float, closes: float) -> float:
    """The part of the reply's time that lies in the window."""
    return max(0.0, min(reply.ended, closes) - max(reply.started, opens)) / (reply.ended - reply.started)


def _now() -> float:
    return time.monotonic()


def table(figures: dict[str, list[Figures]]) -> Table:
    """Medians over the rounds, and of the ratios to the OpenAI app."""

    def median(system: str, name: str) -> float:
        return statistics.median(getattr(one, name) for one in figures[system])

    def ratio(system: str, name: str) -> float:
        rounds = zip(figures[system], figures[APP], strict=True)
        return statistics.median(getattr(ours, name) / getattr(theirs, name) for ours, theirs in rounds)

    shown = Table("", "tokens/s", "ratio", "first token p50", "ratio", "p99", "reply p50")
    for system in figures:
        shown.add_row(
            system,
            f"{median(system, 'tokens_per_s'):,.0f}",
            f"{ratio(system, 'tokens_per_s'):.2f}",
            f"{median(system, 'first_p50_ms'):.0f} ms",
            f"{ratio(system, 'first_p50_ms'):.2f}",
            f"{median(system, 'first_p99_ms'):.0f} ms",
            f"{median(system, 'reply_p50_ms'):.0f} ms",
        )
    return shown
