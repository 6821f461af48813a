"""Providers of models: one wire format a file, all with one shape."""

import os
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from domain.errors import GenerationError
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Provider, Route

MAX_REASON = 300  # characters of a provider's words that may be shown
_KEYS = re.compile(r"\bsk-[\w*-]{6,}|\bBearer\s+\S+", re.IGNORECASE)


class Piece(NamedTuple):
    """What arrived together: text, and at the end why the model stopped and what it counted.

    `finish_reason` in OpenAI's words. `tool_calls`: deltas in the shape of OpenAI's chat stream (`index`, `id`, `type`,
    `function`). `ref`, `cursor`: where the provider lets a lost stream be taken up again: its name there, and how far.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    ref: str | None = None
    cursor: int | None = None


class ProviderFailure(GenerationError):
    """The provider did not give an answer.

    `retryable`: the same call may succeed if nothing of an answer has arrived. `retry_after`: seconds, as the provider
    asked. `timed_out`: a time limit ended it. `status`: HTTP's, also of an error that came in mid-stream, where the
    provider named one. `refused`: the request itself is at fault (400, 413, 414, 422): no repetition helps, and it
    says nothing of the provider's health. `ended`: the provider gave the answer up: none is left to
    re-attach to.
    """

    def __init__(
        self,
        message: str,
        retryable: bool = False,
        retry_after: float | None = None,
        timed_out: bool = False,
        status: int | None = None,
        refused: bool = False,
        ended: bool = False,
    ) -> None:
        super().__init__(message, retryable, retry_after, timed_out, status, refused, ended)
        self.retryable, self.retry_after, self.timed_out = retryable, retry_after, timed_out
        self.status, self.refused = status, refused  # type: ignore[assignment]  # the provider's status, not ours
        self.ended = ended


class Wire(Protocol):
    """One provider's way to stream an answer."""

    def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Call `route`'s model once, and give what arrives, as it arrives.

        An answer is complete when a piece carried a `finish_reason` and nothing was raised; an iterator that ends
        without one was cut short. Raises `ProviderFailure`. The caller holds the time limits, except the one on
        connecting. Closing the iterator closes the provider's stream.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Reattaches(Protocol):
    """A wire that takes up a lost answer again, where the model's `reattach` asks for it.

    Its `stream` tells the answer's `ref` as soon as it knows it, in a piece that may hold nothing else.
    """

    def resume(
        self, route: Route, request: GenerationRequest, ref: str, cursor: int | None
    ) -> AsyncGenerator[Piece, None]:
        """What the answer `ref` says after `cursor`; otherwise as `stream`."""
        ...

    async def abandon(self, route: Route, ref: str) -> None:
        """Stop the answer `ref` at the provider: closing its stream does not. Raises `ProviderFailure`."""
        ...


def resolve_key(provider: Provider) -> str | None:
    """The provider's key, from this process's environment, its file, or as it was opened; None where it has none.

    Raises a final `ProviderFailure` that names the place, never the key.
    """
    if provider.key is not None:
        name = provider.key[2:-1]
        place, key = f"the environment variable {name}", os.environ.get(name, "").strip()
    elif provider.key_file is not None:
        place = f"the file {provider.key_file}"
        try:
            key = Path(provider.key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
    elif provider.sealed_key is not None:
        place, key = "the database: its master key is not at hand", provider.opened_key or ""
    else:
        return None
    if not key or not key.isascii() or not key.isprintable():
        raise ProviderFailure(f"the key of provider {provider.name!r} is not readable from {place}")
    return key


def shown(words: str, key: str | None) -> str:
    """A provider's words on one line, bounded and without keys."""
    words = words.replace("\0", "")  # PostgreSQL stores none
    if key:
        words = words.replace(key, "***")
    return _KEYS.sub("***", " ".join(words[: 16 * MAX_REASON].split()))[:MAX_REASON]
