"""A load of turns and completions that go wrong, each in a way that is known beforehand."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import asyncpg

from benchmarks.reconciliation import Asked

PRICE_IN, PRICE_OUT = 1.5, 6.25  # USD a million tokens, of every model here
TURNS_A_CONVERSATION = 8
PATIENCE = 120  # seconds for one request
WORDS = ("order", "delivery", "parcel", "refund", "the", "a", "please", "when", "my", "not", "late", "blue", "card")

How = Literal["whole", "stream", "cancel", "unkept", "unkept stream", "disconnect"]


@dataclass(frozen=True, slots=True)
class Cause:
    """`share` of the load. In `model`, {n} and {at} are drawn for every turn. `seen`: how it must end."""

    share: int
    how: How
    model: str
    seen: str


CAUSES = {
    "complete": Cause(10, "stream", "mock,n={n}", "completed"),
    "complete, not streamed": Cause(5, "whole", "mock,n={n}", "completed"),
    "no usage told": Cause(10, "whole", "mock,n={n},fault=no_usage", "completed"),
    "refused, then whole": Cause(8, "whole", "mock,n={n},status=500,times=1,per=message", "completed"),
    "cut": Cause(10, "whole", "mock,n=64,itl=1,fault=cut,at={at}", "failed"),
    "truncated": Cause(8, "stream", "mock,n=64,itl=1,fault=truncate,at={at}", "failed"),
    "error event": Cause(8, "whole", "mock,n=64,itl=1,fault=error_event,at={at}", "failed"),
    "silent before": Cause(2, "whole", "mock,fault=hang_before", "failed"),
    "silent after": Cause(7, "whole", "mock,n=64,itl=1,fault=hang_after,at={at}", "failed"),
    "cut, then anew": Cause(5, "whole", "resets", "completed"),
    "replaced": Cause(4, "whole", "auto", "completed"),
    "cancelled": Cause(8, "cancel", "mock,n=400,itl=5", "cancelled"),
    "unkept": Cause(5, "unkept", "mock,n={n}", "completed"),
    "unkept, cut": Cause(3, "unkept stream", "mock,n=64,itl=1,fault=cut,at={at}", "failed"),
    "unkept, client left": Cause(7, "disconnect", "mock,n=400,itl=5", "left"),
}


def config(provider_url: str, key: str, tokenizer: Path | None) -> dict[str, Any]:
    """A configuration with all that the causes need: short limits, and no circuit that opens."""
    plain: dict[str, Any] = {"price_in": PRICE_IN, "price_out": PRICE_OUT, "context_tokens": 64_000}
    if tokenizer is not None:
        plain["tokenizer"] = str(tokenizer)
    anew = {"id": "resets", "upstream": "mock,n=40,itl=1,fault=cut,at=9,times=1,per=message", "reset": True}
    common = {
        "base_url": provider_url,
        "key": key,
        "timeouts": {"connect": 5, "first_token": 3, "idle": 3, "total": 60},
        "breaker": {"failures": 1_000_000},
    }
    silent = {"id": "silent", "upstream": "mock,n=12,fault=hang_before"}
    return {
        "providers": [
            {
                "name": "mock",
                "models": [
                    {"id": "backup", "upstream": "mock,n=12", **plain},
                    {**anew, **plain},
                    {"id": "mock*", **plain},
                ],
                **common,
            },
            {"name": "silent", "models": [{**silent, **plain}], **common, "retries": 0},
        ],
        "routing": {"default": "silent", "fallback": ["backup"]},
    }


def write_tokenizer(path: Path) -> Path:
    """A tokenizer that counts as the mock provider does: a token a word."""
    made = {
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
        "added_tokens": [],
    }
    path.write_text(json.dumps(made))
    return path


class FaultyTurns:
    """Asks a service at `url` for turns of every cause, `clients` at a time, the same ones for the same seed."""

    def __init__(self, url: str, key: str, clients: int = 24, seed: int = 7) -> None:
        self._url, self._clients = url, clients
        self._headers = {"authorization": f"Bearer {key}"}
        self._random = random.Random(seed)
        self.asked: list[Asked] = []

    async def run(self, number: int, done: Any = None) -> list[Asked]:
        """All turns, once each; what the service refuses to take is an error."""
        plan = self._plan(number)
        limits = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, headers=self._headers, timeout=limits, connector=connector) as http:
            waiting = iter(plan)
            await asyncio.gather(*(self._client(http, waiting, done) for _ in range(self._clients)))
        return self.asked

    def unexpected(self) -> list[str]:
        """Turns that did not end as their cause says. A cancel may come too late."""
        return [
            f"{one.cause}: {one.seen} ({one.turn_id})"
            for one in self.asked
            if one.seen != CAUSES[one.cause].seen and (one.cause, one.seen) != ("cancelled", "completed")
        ]

    def _plan(self, number: int) -> list[tuple[str, str, str]]:
        names, shares = list(CAUSES), [cause.share for cause in CAUSES.values()]
        drawn = [*names, *self._random.choices(names, shares, k=max(number - len(names), 0))][:number]
        self._random.shuffle(drawn)
        plan = []
        for place, name in enumerate(drawn):
            words = " ".join(self._random.choices(WORDS, k=self._random.randint(4, 60)))
            model = CAUSES[name].model.format(n=self._random.choice((12, 40)), at=self._random.choice((2, 9, 30)))
            plan.append((name, f"{place} {name}: {words}", model))
        return plan

    async def _client(self, http: aiohttp.ClientSession, waiting: Any, done: Any) -> None:
        conversation = ""
        for turns, (cause, message, model) in enumerate(waiting):
            if turns % TURNS_A_CONVERSATION == 0:
                async with http.post("/api/v1/conversations", json={"user_id": "usr_faulty"}) as answer:
                    conversation = (await answer.json())["id"]
            turn_id, seen = await self._ask(http, conversation, CAUSES[cause].how, message, model)
            self.asked.append(Asked(cause, message, turn_id, seen))
            if done is not None:
                done()

    async def _ask(
        self, http: aiohttp.ClientSession, conversation: str, how: How, message: str, model: str
    ) -> tuple[str | None, str]:
        path = f"/api/v1/conversations/{conversation}/messages"
        if how == "whole":
            async with http.post(path, json={"content": message, "model": model}) as answer:
                return _of_answer(await answer.json())
        if how in ("stream", "cancel"):
            body = {"content": message, "model": model, "stream": True}
            async with http.post(path, json=body) as answer:
                return await self._follow(http, answer, self._random.randint(1, 20) if how == "cancel" else None)
        body = {"model": model, "messages": [{"role": "user", "content": message}], "stream": how != "unkept"}
        async with http.post("/v1/chat/completions", json=body) as answer:
            if how == "unkept":
                found = await answer.json()
                return (_turn_of(found), "completed") if answer.status == 200 else _of_answer(found)
            return await _chunks(answer, self._random.randint(1, 20) if how == "disconnect" else None)

    async def _follow(
        self, http: aiohttp.ClientSession, answer: aiohttp.ClientResponse, cancel_after: int | None
    ) -> tuple[str | None, str]:
        deltas, turn_id = 0, None
        async for event in _events(answer):
            turn_id = event["turn_id"]
            deltas += event["type"] == "message.delta"
            if cancel_after is not None and deltas >= cancel_after:
                cancel_after = None
                async with http.post(f"/api/v1/turns/{turn_id}/cancel"):
                    pass
            if event["type"] in ("turn.completed", "turn.failed", "turn.cancelled"):
                return turn_id, event["type"].removeprefix("turn.")
        return turn_id, "no end"


async def _chunks(answer: aiohttp.ClientResponse, leave_after: int | None) -> tuple[str | None, str]:
    """Chunks of a completion; the client leaves after so many deltas."""
    deltas, turn_id, seen = 0, None, "no end"
    async for chunk in _events(answer):
        if "error" in chunk:
            return turn_id, "failed"
        turn_id = _turn_of(chunk)
        for choice in chunk["choices"]:
            deltas += bool(choice["delta"].get("content"))
            seen = "completed" if choice["finish_reason"] else seen
        if leave_after is not None and deltas >= leave_after:
            answer.close()
            return turn_id, "left"
    return turn_id, seen


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    with contextlib.suppress(aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        async for line in answer.content:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


def _of_answer(body: dict[str, Any]) -> tuple[str | None, str]:
    if "turn" in body:
        return body["turn"]["id"], body["turn"]["status"]
    param = body["error"].get("param")
    failed = isinstance(param, str) and param.startswith("turn_")
    return (param, "failed") if failed else (None, f"refused: {body['error']['message']}")


def _turn_of(completion: dict[str, Any]) -> str:
    return "turn_" + str(completion["id"]).removeprefix("chatcmpl-")


async def ledger_of(database_url: str, asked: Sequence[Asked]) -> list[asyncpg.Record]:
    """The ledger's rows of these turns."""
    database = await asyncpg.connect(database_url)
    try:
        return await database.fetch(
            "SELECT turn_id, attempt, call, model, basis, why, reply, prompt_tokens, completion_tokens, cost_usd"
            " FROM brain.usage WHERE turn_id = ANY ($1)",
            [one.turn_id for one in asked if one.turn_id],
        )
    finally:
        await database.close()


async def texts_of(database_url: str, asked: Sequence[Asked]) -> dict[str, str]:
    """The stored replies by turn."""
    database = await asyncpg.connect(database_url)
    try:
        found = await database.fetch(
            "SELECT turn_id, content FROM brain.messages WHERE role = 'assistant' AND turn_id = ANY ($1)",
            [one.turn_id for one in asked if one.turn_id],
        )
    finally:
        await database.close()
    return {row["turn_id"]: row["content"] for row in found}
