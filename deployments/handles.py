"""The domain's ports over Serve's deployment handles.

Domain errors cross as data (`Refused`), never as exceptions: what Serve does to an exception depends on its transport.
Whatever else a call raises means that its replica could not answer; every call here may be repeated.
"""

import asyncio
import contextvars
import logging
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ray.serve.context import _get_serve_request_context, _serve_request_context
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.coalescing import Coalesced
from deployments.states import States
from domain import errors
from domain.commands import Accepted, Append, Appended, Change, Ended, Refused, Send
from domain.conversation import Conversation, ConversationKey
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import BrainError, Fenced, Overloaded, Unavailable
from domain.ports import HeadInUse, Understanding
from domain.understanding import Example

log = logging.getLogger("brain.handles")
T = TypeVar("T")


async def answered(work: Awaitable[T]) -> T | Refused:
    """On the replica: the result, or the domain's error as data."""
    try:
        return await work
    except BrainError as error:
        return Refused(type(error).__name__, str(error), isinstance(error, errors.Retryable))


def settled(answer: T | Refused) -> T:
    """At the caller: the result, or the domain's error raised."""
    if isinstance(answer, Refused):
        raise getattr(errors, answer.error, BrainError)(answer.message)
    return answer


async def ask(call: Callable[[], Awaitable[Any]]) -> Any:
    """One call of a handle. Raises the domain's errors; `Unavailable` where the replica could not answer."""
    try:
        return settled(await apart(call))
    except BrainError:
        raise
    except BackPressureError as error:
        raise Overloaded("too many calls are waiting") from error
    except Exception as error:
        log.warning("a replica could not answer: %s", type(error).__name__)
        raise Unavailable("a part of the service could not answer") from error


def apart(call: Callable[[], T]) -> T:
    """Make a call in a context of its own, see `_apart`."""
    return contextvars.copy_context().run(_apart, call)


def _apart(call: Callable[[], T]) -> T:
    """Make a call with an internal id of its own. Calls made while one request is served inherit that request's, and
    of those that wait together Serve's router knows but one by it (Ray 2.60): the others would wait for ever."""
    _serve_request_context.set(replace(_get_serve_request_context(), _internal_request_id=""))
    return call()


def plain(handle: DeploymentHandle) -> DeploymentHandle:
    """A handle that pickles by the standard library: what crosses here is plain data, never code."""
    return handle.options(request_serialization="pickle", response_serialization="pickle")


class HandleHosts:
    """Conversations' hosts (`domain.ports.Hosts`). Each conversation is a session, so its calls meet at one replica.

    A fenced call is repeated `fenced` times; one whose replica died, for `patience` seconds.
    """

    def __init__(self, handle: DeploymentHandle, fenced: int = 3, patience: float = 8.0) -> None:
        self._handle, self._fenced, self._patience = plain(handle), fenced, patience

    async def send(self, send: Send) -> Accepted | Ended:
        found: Accepted | Ended = await self._repeat(send.key, lambda handle: handle.send.remote(send))
        return found

    async def change(self, change: Change) -> Conversation:
        found: Conversation = await self._repeat(change.key, lambda handle: handle.change.remote(change))
        return found

    async def append(self, append: Append) -> Appended:
        found: Appended = await self._repeat(append.key, lambda handle: handle.append.remote(append))
        return found

    async def delete(self, key: ConversationKey) -> None:
        await self._repeat(key, lambda handle: handle.delete.remote(key))

    async def cancel(self, key: ConversationKey, turn_id: str) -> None:
        await self._repeat(key, lambda handle: handle.cancel.remote(key, turn_id))

    async def resume(self, key: ConversationKey) -> None:
        await ask(lambda: self._session(key).resume.remote(key))

    def _session(self, key: ConversationKey) -> Any:
        return self._handle.options(session_id=key.session)

    async def _repeat(self, key: ConversationKey, call: Callable[[Any], Awaitable[Any]]) -> Any:
        deadline: float | None = None  # counts from the first failure: a call may wait for a whole turn
        unknown: errors.CommitUnknown | None = None
        fenced = 0
        handle = self._session(key)
        while True:
            began = time.monotonic()
            try:
                return await ask(lambda: call(handle))
            except Fenced as error:
                fenced += 1
                if fenced > self._fenced:
                    raise Unavailable("the conversation is moving between hosts") from error
            except (Unavailable, Overloaded) as error:
                if isinstance(error, errors.CommitUnknown):
                    unknown = error
                now = time.monotonic()
                if deadline is None or now - began > self._patience:
                    deadline = now + self._patience
                if now > deadline or isinstance(error, Overloaded):
                    raise unknown or error from None
            await asyncio.sleep(0.05 * (fenced + 1))


class HandleClassifier:
    """`domain.ports.Classifier` over a handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = plain(handle)

    async def classify(self, text: str, tenant: str = "") -> Understanding:
        found: Understanding = await ask(lambda: self._handle.classify.remote(text, tenant))
        return found

    async def classify_many(self, texts: Sequence[str], tenant: str = "") -> list[Understanding]:
        found: list[Understanding] = await ask(lambda: self._handle.classify_many.remote(list(texts), tenant))
        return found

    async def evaluate(self, examples: Sequence[Example], tenant: str = "") -> dict[str, Any]:
        found: dict[str, Any] = await ask(lambda: self._handle.evaluate.remote(list(examples), tenant))
        return found

    async def head(self, tenant: str) -> HeadInUse:
        found: HeadInUse = await ask(lambda: self._handle.head.remote(tenant))
        return found


class HandleTrainer:
    """Trainers of heads, over a handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = plain(handle)

    async def wake(self) -> None:
        """Say that a training waits; it would be found a moment later without it."""
        await ask(lambda: self._handle.wake.remote())


class HandleEmbedder:
    """`domain.ports.Embedder` over a handle. Messages that wait share a call: see `Coalesced`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = plain(handle)
        self._messages: Coalesced[str, array[float] | Refused] = Coalesced(self._embed_together)

    async def embed(self, text: str) -> Embedding:
        vector: array[float] = settled(await self._messages.run(text))
        return vector.tolist()

    async def _embed_together(self, texts: list[str]) -> list["array[float] | Refused"]:
        found: list[array[float] | Refused] = await ask(lambda: self._handle.embed_together.remote(texts))
        return found

    async def embed_many(self, texts: Sequence[str]) -> list[Embedding]:
        found: list[Embedding] = await ask(lambda: self._handle.embed_many.remote(list(texts)))
        return found

    async def embed_with_states(self, texts: Sequence[str], *, urgent: bool = True) -> list[tuple[Embedding, States]]:
        found = await ask(lambda: self._handle.embed_with_states.remote(list(texts), urgent))
        return [(vector.tolist(), states) for vector, states in found]

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> list[Embedding]:
        """`domain.indexing.SpaceEmbedder`: the replica that answers says whether it is that one."""
        found: list[Embedding] = await ask(lambda: self._handle.embed_for.remote(embedder, list(texts)))
        return found

    async def count_tokens(self, texts: Sequence[str]) -> int:
        found: int = await ask(lambda: self._handle.count_tokens.remote(list(texts)))
        return found

    async def describe(self) -> EmbedderInfo:
        found: EmbedderInfo = await ask(lambda: self._handle.describe.remote())
        return found
