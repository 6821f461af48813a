"""Goes on after a failure past the first token, where the model allows it: no word is repeated, none is missing."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace

from deployments.policies import Call, Policy
from deployments.providers import Piece, ProviderFailure, Reattaches, Wire

log = logging.getLogger(__name__)
CLOSING = 1.0  # seconds
MOST = 3  # times that one answer is taken up again


@dataclass(slots=True)
class Said:
    """What has come of an answer: its text, whether it called tools or ended, and its name and cursor over there."""

    text: list[str] = field(default_factory=list)
    tools: bool = False
    finished: bool = False
    ref: str | None = None
    cursor: int | None = None

    def take(self, piece: Piece) -> None:
        if piece.text:
            self.text.append(piece.text)
        self.tools = self.tools or bool(piece.tool_calls)
        self.finished = self.finished or piece.finish_reason is not None
        if piece.ref is not None and piece.ref != self.ref:
            self.ref, self.cursor = piece.ref, None
        self.cursor = self.cursor if piece.cursor is None else piece.cursor

    @property
    def resumable(self) -> bool:
        """Whether it is known from where the stream would go on."""
        return self.ref is not None and (self.cursor is not None or not (self.text or self.tools))


class Continuing:
    """Re-attaches to the provider's stream where the model has `reattach` and the wire can; where the model has
    `continues`, asks again with the text so far as `prefix`, if it is no JSON, of which each answer is a whole one.
    Within the time that one call may take in all.

    An answer that runs in the provider's background is stopped there when its stream is closed early.
    """

    def __init__(
        self, inner: Policy, wires: Mapping[str, Wire], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner, self._wires, self._monotonic = inner, wires, monotonic
        self._abandoning: set[asyncio.Task[None]] = set()

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        said, first, times = Said(), call, 0
        end = self._monotonic() + call.route.provider.timeouts.total
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._inner.stream(call)) as pieces:
                        async for piece in pieces:
                            said.take(piece)
                            yield piece
                    return
                except ProviderFailure as failure:
                    if said.finished:
                        return
                    if failure.ended:
                        said.ref = None
                    following = self._following(first, call, said)
                    if following is None or times >= MOST or self._monotonic() >= end:
                        raise
                times, call = times + 1, following
        finally:
            self._abandon(first, said)

    async def close(self) -> None:
        """Give what is being stopped a moment, before the connections go."""
        if self._abandoning:
            await asyncio.wait(self._abandoning, timeout=CLOSING)

    def _following(self, first: Call, failed: Call, said: Said) -> Call | None:
        """The call that goes on after `failed`; None where there is none."""
        route, request = first.route, first.request
        may = said.resumable and self._can_reattach(first)
        if said.ref is not None and may and (failed.resume is None or _progressed(failed, said)):
            resume = (said.ref, said.cursor, tuple(said.text))
            return replace(first, why="reattached", resume=resume, began=asyncio.Event())
        form = (request.parameters.get("response_format") or {}).get("type", "text")
        if route.model.continues and said.text and not said.tools and form == "text":
            request = replace(request, prefix=request.prefix + "".join(said.text))
            return replace(first, why="continued", request=request, began=asyncio.Event())
        return None

    def _can_reattach(self, call: Call) -> bool:
        return call.route.model.reattach and isinstance(self._wires.get(call.route.provider.kind), Reattaches)

    def _abandon(self, call: Call, said: Said) -> None:
        wire: object = self._wires.get(call.route.provider.kind)
        if said.ref is None or said.finished or not self._can_reattach(call) or not isinstance(wire, Reattaches):
            return
        task = asyncio.create_task(_abandon(wire, call, said.ref))
        self._abandoning.add(task)
        task.add_done_callback(self._abandoning.discard)


def _progressed(failed: Call, said: Said) -> bool:
    """Whether the resumed stream got further than where it was resumed."""
    return failed.resume is not None and failed.resume[1] != said.cursor


async def _abandon(wire: Reattaches, call: Call, ref: str) -> None:
    try:
        async with asyncio.timeout(call.route.provider.timeouts.first_token):
            await wire.abandon(call.route, ref)
    except Exception as failure:
        log.warning("an answer goes on unheard: %r", failure)
