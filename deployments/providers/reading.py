"""The way from a provider's event stream to pieces, the same for every wire format."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NoReturn, Protocol

import aiohttp

from deployments.providers import Piece, ProviderFailure
from deployments.providers.sse import EventParser
from domain.message import Usage
from domain.model import Provider

MOST_TOKENS = 10**12  # what a provider counts beyond this is nonsense, and fits no column


class Reader(Protocol):
    """What a wire format makes of its events; one for each answer."""

    def take(self, data: bytes) -> bool:
        """Take one event's data; True where nothing more comes after it.

        Raises `ProviderFailure` for an error event; whatever a malformed one raises is told as such.
        """
        ...

    def piece(self) -> Piece | None:
        """What has come since the last piece; None where it is nothing to pass on."""
        ...


class Gathered:
    """What has come since the last piece, in the terms that all formats share. `alive`: the model works, but says
    nothing that is passed on."""

    def __init__(self) -> None:
        self.text, self.alive = "", False
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.calls: list[dict[str, Any]] = []

    def give(self, told: bool = False) -> Piece | None:
        """A piece of it all, None where there is nothing and it must not be `told`; begins anew."""
        text = self.text
        if self.finish or self.calls or self.usage is not None:
            piece = Piece(text, self.finish, self.usage, merged(self.calls) if self.calls else ())
            self.finish, self.usage, self.calls = None, None, []
        elif text or self.alive or told:
            piece = Piece(text)
        else:
            return None
        self.text, self.alive = "", False
        return piece


async def pieces(response: aiohttp.ClientResponse, reader: Reader, provider: Provider) -> AsyncGenerator[Piece, None]:
    """The answer's pieces, one a read; what came before a fault is given before the fault is raised."""
    parser, content, finished, done = EventParser(), response.content, False, False
    while not done:
        try:
            chunk = await content.readany()
        except aiohttp.ClientError:
            if finished:  # the whole answer has arrived
                return
            raise
        if not chunk:
            return
        fault: ProviderFailure | None = None
        try:
            for data in parser.feed(chunk):
                if reader.take(data):
                    done = True
                    break
        except ProviderFailure as failure:
            fault = failure
        except (ValueError, TypeError, AttributeError, LookupError):
            fault = ProviderFailure(f"provider {provider.name!r} sent a malformed event")
        if (piece := reader.piece()) is not None:
            finished = finished or piece.finish_reason is not None
            yield piece
        if fault is not None:
            raise fault
    await ended(content)


async def ended(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the end of the body, so that the connection can be used again."""
    try:
        async with asyncio.timeout(0.05):
            await content.wait_eof()
    except (TimeoutError, aiohttp.ClientError):
        pass


def merged(deltas: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Deltas of tool calls, one for each `index`: the `function.arguments` of those of one index are joined."""
    by_index: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        known = by_index.get(delta["index"])
        if known is None:
            by_index[delta["index"]] = {**delta, "function": dict(delta.get("function") or {})}
            continue
        function = delta.get("function") or {}
        if arguments := function.get("arguments"):
            known["function"]["arguments"] = (known["function"].get("arguments") or "") + arguments
        if name := function.get("name"):
            known["function"]["name"] = name
        known.update({field: delta[field] for field in ("id", "type") if delta.get(field)})
    return tuple(by_index.values())


def count(value: Any) -> int:
    """A count of tokens as a provider gave it, within bounds."""
    return min(max(int(value or 0), 0), MOST_TOKENS)


def refuse(what: str) -> NoReturn:
    """Raise the failure of a request that this wire cannot express."""
    raise ProviderFailure(what, refused=True)
