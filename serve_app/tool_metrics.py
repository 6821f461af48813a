"""Figures of the calls of tools. No label names a tenant or a tool: both are without bounds."""

from collections.abc import Awaitable

from prometheus_client import CollectorRegistry, Histogram

from domain.tools import ToolAnswer


class ToolMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "brain_tool_call_seconds",
            "Calls of tools, by how they ended",
            ["status"],
            registry=registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )

    async def timed(self, call: Awaitable[ToolAnswer]) -> ToolAnswer:
        answer = await call
        self._seconds.labels(answer.status).observe(answer.ms / 1000)
        return answer
