"""The journal of running turns in Redis Streams (`domain.ports.Journal`): one stream an attempt.

Event `n` has the entry id `n-0`, so a reader resumes after any event with one range. Marks that readers of the journal
need and clients never see lie between, at `n-1`, `n-2` …: '.sealed' (the generation has ended), '.round' (so has one
whose model calls tools; another one follows it), '.next' (another attempt has begun). A claim with a time to live is
the writer's heartbeat. An owner who takes a turn over leaves its epoch: whoever had it before, and only stood still,
says nothing more.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from domain.errors import JournalRefused, JournalUnavailable
from domain.events import ACCEPTED, DELTA, TERMINAL, Event
from domain.generation import GenerationRequest, Outcome
from domain.ports import Progress
from domain.streams import RoundEnd
from storage.broadcast import Told, publication
from storage.redis import Pipeline

SEALED, ROUND, NEXT = ".sealed", ".round", ".next"
UNKEPT_TTL = 30  # seconds that the ended stream of a generation that nobody stores is kept
_OUTCOME = TypeAdapter(Outcome)
_SCRIPTS = {name: (Path(__file__).parent / "lua" / f"{name}.lua").read_text() for name in ("append", "claim", "own")}
_SHA = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()}
_NAMES: dict[bytes, str] = {}


def stream_key(tenant: str, turn_id: str, attempt: int) -> str:
    """The braces make Redis Cluster keep a turn's keys together."""
    return f"brain:{tenant}:{{{turn_id}}}:{attempt}"


def read_entry(turn_id: str, attempt: int, entry: Sequence[Any]) -> tuple[str, Event]:
    """The kind and the event of a stream's entry; of a mark, the event carries its payload as `mark`."""
    entry_id, fields = entry
    kind_bytes, payload = fields[1], fields[3]
    kind = _NAMES.get(kind_bytes) or _NAMES.setdefault(kind_bytes, kind_bytes.decode())
    n = int(entry_id.partition(b"-")[0])
    if kind == DELTA:
        return kind, Event(turn_id, attempt, n, kind, {"text": payload.decode()})
    if kind.startswith("."):
        return kind, Event(turn_id, attempt, n, kind, {"mark": payload})
    return kind, Event(turn_id, attempt, n, kind, orjson.loads(payload))


class RedisJournal:
    """`ttl`: seconds that a stream outlives its last event; `claim`: seconds without a heartbeat until it is dead."""

    def __init__(self, redis: Redis, ttl: int = 900, claim: float = 3.0) -> None:
        self._pipeline = Pipeline(redis)
        self._ttl, self._claim_ms = ttl, int(claim * 1000)

    async def append(
        self,
        tenant: str,
        turn_id: str,
        attempt: int,
        events: Sequence[tuple[str, dict[str, Any]]],
        after: int = 0,
        epoch: int = 0,
    ) -> int | None:
        pairs = [
            part for kind, data in events for part in (kind, data["text"] if kind == DELTA else orjson.dumps(data))
        ]
        n = await self._append(stream_key(tenant, turn_id, attempt), after, "", pairs, epoch=epoch)
        if events and events[0][0] == ACCEPTED:
            self._announce(tenant, turn_id, events[0][1])
        return n

    def _announce(self, tenant: str, turn_id: str, accepted: dict[str, Any]) -> None:
        """To whoever watches the conversation."""
        conversation = (accepted.get("user_message") or {}).get("conversation_id")
        if conversation is not None:
            told = publication(Told(tenant, conversation, "turn", "", turn_id))
            self._pipeline.send(*told).add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    async def claim(self, request: GenerationRequest, writer: str) -> bool:
        key = stream_key(request.tenant, request.turn_id, request.attempt)
        return bool(await self._script("claim", key, writer, self._claim_ms))

    async def write(self, request: GenerationRequest, writer: str, deltas: Sequence[str], after: int) -> int | None:
        pairs = [part for text in deltas for part in (DELTA, text)]
        return await self._append(stream_key(request.tenant, request.turn_id, request.attempt), after, writer, pairs)

    async def beat(self, names: Sequence[GenerationRequest], writer: str) -> None:
        await asyncio.gather(*(self.write(request, writer, (), 0) for request in names))

    async def seal(self, request: GenerationRequest, writer: str, outcome: Outcome) -> None:
        key = stream_key(request.tenant, request.turn_id, request.attempt)
        body = {**_OUTCOME.dump_python(outcome, mode="json"), "text": ""}  # the text stands in the deltas
        after = outcome.deltas[-1][0] if outcome.deltas else request.n
        kind = ROUND if request.kept and outcome.calls_tools else SEALED
        if kind == ROUND:
            body["round"] = request.round
        await self._append(key, after, writer, [kind, orjson.dumps(body)], None if request.kept else UNKEPT_TTL)

    async def supersede(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> None:
        await self._append(stream_key(tenant, turn_id, attempt), 0, "", [NEXT, b""], epoch=epoch)

    async def progress(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> Progress:
        key = stream_key(tenant, turn_id, attempt)
        if epoch:
            with suppress(JournalRefused):  # then nobody's events are taken, and what is there can be read
                await self._script("own", key, epoch, self._ttl)
        try:
            entries, alive = await asyncio.gather(
                self._pipeline.send("XRANGE", key, "-", "+"), self._pipeline.send("EXISTS", key + ":claim")
            )
        except ResponseError as error:
            raise JournalUnavailable(str(error)) from error
        events, rounds, sealed, closed = [], [], None, False
        for entry in entries:
            kind, event = read_entry(turn_id, attempt, entry)
            if kind == SEALED:
                sealed = _OUTCOME.validate_json(event.data["mark"])
            elif kind == ROUND:
                mark = orjson.loads(event.data["mark"])
                rounds.append(RoundEnd(event.n, mark.pop("round"), _OUTCOME.validate_python(mark)))
            elif kind != NEXT:
                events.append(event)
            closed = kind == NEXT or kind in TERMINAL
        return Progress(events, sealed, bool(alive), closed, tuple(rounds))

    async def ping(self) -> None:
        await self._pipeline.send("PING")

    async def close(self) -> None:
        await self._pipeline.close()

    async def _append(
        self, key: str, after: int, writer: str, pairs: Sequence[Any], ttl: int | None = None, epoch: int = 0
    ) -> int | None:
        n = int(await self._script("append", key, after, ttl or self._ttl, writer, self._claim_ms, epoch, *pairs))
        return n if n >= 0 else None

    async def _script(self, name: str, key: str, *args: Any) -> Any:
        try:
            return await self._pipeline.send("EVALSHA", _SHA[name], *_keys(key), *args)
        except NoScriptError:
            return await self._evaluate(name, key, *args)
        except ResponseError as error:
            raise JournalRefused(str(error)) from error

    async def _evaluate(self, name: str, key: str, *args: Any) -> Any:
        try:
            return await self._pipeline.send("EVAL", _SCRIPTS[name], *_keys(key), *args)
        except ResponseError as error:
            raise JournalRefused(str(error)) from error


def _keys(key: str) -> tuple[int, str, str, str]:
    """Of every script: the stream, its writer's claim, its owner's epoch."""
    return 3, key, key + ":claim", key + ":owner"
