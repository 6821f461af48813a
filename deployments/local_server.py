"""vLLM in a deployment of `ray.serve.llm`; imported only where both are installed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest

from deployments.autoscaling import ReportsLoad
from deployments.providers.vllm import Asked, Fault

STEP, MOST = 0.003, 0.05  # seconds that a list of chunks may wait: for each running answer, and at most


class BadAdapter(Exception):
    """A tenant's adapter is not here, or vLLM does not take it."""


class LocalLLM(ReportsLoad, LLMServer):  # type: ignore[misc]
    """`ray.serve.llm`'s server with one more method, `answer`, and LoRA adapters from folders, by tenant."""

    async def __init__(self, llm_config: LLMConfig, *, adapters: Mapping[str, str] | None = None) -> None:  # type: ignore[misc]
        self._adapters, self._answering = dict(adapters or {}), 0
        await super().__init__(llm_config)

    async def answer(self, asked: Asked) -> AsyncGenerator[list[str | Fault], None]:
        """OpenAI's server-sent events, several together: the first at once, the more wait the more answers run.

        Closing it aborts the engine's request. What the engine does not take is told by a `Fault`.
        """
        self._answering += 1
        try:
            request = ChatCompletionRequest(**asked.body)
            request.model = await self._served(asked.adapter)
            chunks = together(self.engine.chat(request), lambda: min(STEP * self._answering, MOST))
            async with contextlib.aclosing(chunks) as lists:
                async for arrived in lists:
                    yield [one if isinstance(one, str) else Fault(one.error.message, one.error.code) for one in arrived]
        except ValidationError as error:
            yield [Fault(error.errors(include_url=False, include_input=False)[0]["msg"], 400)]
        except BadAdapter as error:
            yield [Fault(str(error), 400)]
        finally:
            self._answering -= 1

    async def ping(self) -> dict[str, Any]:
        """How many answers the engine works on."""
        return {"running": self._answering}

    async def _served(self, adapter: str | None) -> str:
        """vLLM's name of the model with this adapter, loaded if need be."""
        model: str = self._llm_config.model_id
        if adapter is None:
            return model
        if adapter not in self._adapters:
            raise BadAdapter(f"the adapter of {adapter} was not deployed: it needs a new deployment")
        name = f"{model}:{adapter}"
        try:
            await self.engine.resolve_lora(SimpleNamespace(model_id=name, local_path=self._adapters[adapter]))
        except ValueError as error:
            raise BadAdapter(f"the adapter of {adapter} cannot be loaded: {error}") from error
        return name


class FolderOnEveryNode(CallbackBase):  # type: ignore[misc]
    """Says that nothing needs to be downloaded: that step costs a process which imports vLLM once more."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


async def together(source: AsyncIterator[Any], pause: Any) -> AsyncGenerator[list[Any], None]:
    """What `source` gives, in lists: the first item at once, then what has come within `pause()` seconds.

    Closing it cancels what `source` waits for, and so an engine's request.
    """
    waiting: list[Any] = []
    arrived = asyncio.Event()

    async def read() -> None:
        try:
            async for item in source:
                waiting.append(item)
                arrived.set()
        finally:
            arrived.set()

    reading = asyncio.create_task(read())
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            if waiting:
                items = waiting[:]
                waiting.clear()
                yield items
            if reading.done() and not waiting:
                reading.result()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause()):
                    await asyncio.shield(reading)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
