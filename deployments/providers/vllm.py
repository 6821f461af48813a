"""Models that this service runs itself: calls their engines, in this process or over their deployments' handles."""

import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.handles import apart, plain
from deployments.providers import Piece, ProviderFailure, shown
from deployments.providers.openai import ChatReader, body_of
from domain.generation import GenerationRequest
from domain.local_model import VllmOptions
from domain.model import Route

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a deployment. `adapter`: the tenant whose LoRA adapter answers, None for the bare model."""

    body: dict[str, Any]
    adapter: str | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Where Serve's prefix router looks for the prompt."""
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages


@dataclass(frozen=True, slots=True)
class Fault:
    """The engine did not take a request, or failed. `code` as HTTP's: below 500, a second try fails too."""

    message: str
    code: int


class Engine(Protocol):
    """What answers for one local model. Calls of one `session` meet at one replica while it lives."""

    def answer(self, asked: Asked, session: str) -> AsyncGenerator[list[str | Fault], None]:
        """OpenAI's server-sent events, in lists of what came together. Closing it ends the engine's request."""
        ...


class HandleEngine:
    """The replicas behind a handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = plain(handle).options(stream=True)

    async def answer(self, asked: Asked, session: str) -> AsyncGenerator[list[str | Fault], None]:
        replica = self._handle.options(session_id=session)
        arriving = apart(lambda: replica.answer.remote(asked))  # beside another call of the generation, for one
        try:
            async for events in arriving:
                yield events
        finally:
            with contextlib.suppress(Exception):
                arriving.cancel()  # does nothing once it has ended


class VllmWire:
    """Calls the `engines`, by model id."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    async def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        engine, options = self._engines.get(route.model.id), route.model.vllm
        if engine is None or options is None:
            raise ProviderFailure(
                f"the model {route.id!r} has no deployment: vLLM models are deployed when the service starts, and one "
                "that was added or changed since needs a new deployment"
            )
        asked = Asked(body_for(route, request, options), adapter_of(request.tenant, options))
        session = f"{request.tenant}:{request.session or request.turn_id}"
        reader = ChatReader(route.provider, None)
        try:
            async with contextlib.aclosing(engine.answer(asked, session)) as arriving:
                async for events in arriving:
                    if (piece := read(events, reader, route)) is not None:
                        yield piece
        except BackPressureError:
            raise ProviderFailure(f"the model {route.id!r} has too many requests waiting", True) from None
        except ProviderFailure:
            raise
        except Exception as error:
            log.warning("the engine of %s failed: %r", route.id, error)
            raise ProviderFailure(f"the engine of the model {route.id!r} failed", True) from error

    async def close(self) -> None:
        """Nothing is held open between two calls."""


def body_for(route: Route, request: GenerationRequest, options: VllmOptions) -> dict[str, Any]:
    """OpenAI's body with vLLM's own fields: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html."""
    body = body_of(route, request)
    if request.prefix:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": request.prefix}]
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if options.cache_salt and options.prefix_caching:
        body["cache_salt"] = salt(request.tenant)
    return body


def adapter_of(tenant: str, options: VllmOptions) -> str | None:
    return tenant if options.lora is not None and tenant in options.lora.adapters else None


def salt(tenant: str) -> str:
    """Equal for one tenant's requests. No secret: no caller can send one, this service alone makes the bodies."""
    return hashlib.sha256(b"chat-brain cache salt\0" + tenant.encode()).hexdigest()[:32]


def read(events: list[str | Fault], reader: ChatReader, route: Route) -> Piece | None:
    """What arrived together as one piece; None if it is nothing but the frame of an answer."""
    for event in events:
        if isinstance(event, Fault):
            refused = 400 <= event.code < 500
            words = f"the model {route.id!r}: {shown(event.message, None)}"
            raise ProviderFailure(words, not refused, status=event.code, refused=refused)
        if reader.take(event.removeprefix("data:").strip().encode()):
            break
    return reader.piece()
