"""vLLM in a deployment of `ray.serve.llm`; imported only where both are installed."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest
from vllm.envs import enable_envs_cache

from deployments.autoscaling import ReportsLoad
from deployments.beat import Beat
from deployments.engine_metrics import sample_tokens, stat_loggers
from deployments.providers.vllm import Asked, Fault

MOST = 0.1  # seconds between two chunks of an answer


class BadAdapter(Exception):
    """A tenant's adapter is not here, or vLLM does not take it."""


class LocalLLM(ReportsLoad, LLMServer):  # type: ignore[misc]
    """`ray.serve.llm`'s server with one more method, `answer`, and LoRA adapters from folders, by tenant."""

    async def __init__(self, llm_config: LLMConfig, *, adapters: Mapping[str, str] | None = None) -> None:  # type: ignore[misc]
        self._adapters = dict(adapters or {})
        self._beat = Beat(self._interval)  # its answers are named as the engine names its requests
        await super().__init__(llm_config)

    async def start(self) -> None:
        await super().start()
        self._load.finished = self._beat.end
        sample_tokens(stat_loggers(self.engine) or ())
        enable_envs_cache()  # as the engine's own processes do: vLLM reads its settings for each token

    async def answer(self, asked: Asked) -> AsyncGenerator[list[str | Fault], None]:
        """OpenAI's server-sent events: the first token's at once, then the rarer the more answers run.

        Closing it aborts the engine's request. What the engine does not take is told by a `Fault`.
        """
        name = uuid.uuid4().hex
        try:
            request = ChatCompletionRequest(**asked.body, request_id=name)
            request.model = await self._served(asked.adapter)
            with self._beat.answer(f"chatcmpl-{name}"):
                chunks = paced(self.engine.chat(request), lambda: self._beat.wait(f"chatcmpl-{name}"))
                async with contextlib.aclosing(chunks) as lists:
                    async for arrived in lists:
                        yield [one if isinstance(one, str) else _fault(one) for one in arrived]
        except ValidationError as error:
            yield [Fault(error.errors(include_url=False, include_input=False)[0]["msg"], 400)]
        except BadAdapter as error:
            yield [Fault(str(error), 400)]

    def _interval(self) -> float:
        """So long that all answers together have a chunk for each step of the engine: what they cost does not grow
        with their number."""
        return min(self._load.step * len(self._beat), MOST)

    @property
    def engine_is_dead(self) -> bool:
        return bool(getattr(getattr(self.engine, "_engine_client", None), "errored", False))

    async def ping(self) -> dict[str, Any]:
        """How many answers the engine works on."""
        return {"running": len(self._beat)}

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


def _fault(response: Any) -> Fault:
    return Fault(response.error.message, response.error.code)


async def paced(
    source: AsyncGenerator[Any, None], pause: Callable[[], Awaitable[Any]]
) -> AsyncGenerator[list[Any], None]:
    """What `source` gives, in lists. In mid-text it is left alone until `pause()` has ended, after each of them.

    Of the tokens that come meanwhile vLLM makes one chunk: neither it nor anyone after it handles each by itself.
    Closing this closes `source`, and so ends an engine's request.
    """
    async with contextlib.aclosing(source):
        items: list[Any] = []
        async for item in source:
            items.append(item)
            if in_mid_text(item):
                yield items
                items = []
                await pause()
        if items:
            yield items


def in_mid_text(chunk: Any) -> bool:
    """Whether this is neither the frame before the text nor its end. A text cannot look so: its quotes are escaped."""
    return isinstance(chunk, str) and '"finish_reason":null' in chunk and '"role":' not in chunk
