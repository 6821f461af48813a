"""Serve's prefix router, which imports much of `ray.serve.llm`: only for models that ask for it."""

from ray.serve.llm.request_router import PrefixCacheAffinityRouter

from deployments.routers import TellsReplicas


class PrefixRouter(TellsReplicas, PrefixCacheAffinityRouter):  # type: ignore[misc]
    """By what is cached of the prompt."""
