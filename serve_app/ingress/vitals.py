"""How the components are: each one's latency and its last error."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from domain.errors import BrainError
from serve_app.ingress.shapes import rfc3339

PATIENCE = 2.0  # seconds


class Vitals:
    """Calls every check at once. An error is told by its class, and in words only where they are the domain's."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._checks = checks
        self._last: dict[str, dict[str, str]] = {}

    async def measure(self) -> dict[str, dict[str, Any]]:
        results = await asyncio.gather(*(self._one(name, check) for name, check in self._checks.items()))
        return dict(zip(self._checks, results, strict=True))

    async def _one(self, name: str, check: Callable[[], Awaitable[object]]) -> dict[str, Any]:
        began, status = time.perf_counter(), "ok"
        try:
            async with asyncio.timeout(PATIENCE):
                await check()
        except Exception as error:
            status = "down"
            words = str(error) if isinstance(error, BrainError) else type(error).__name__
            self._last[name] = {"message": words, "at": rfc3339(datetime.now(UTC))}
        latency = round((time.perf_counter() - began) * 1000, 3)
        return {"status": status, "latency_ms": latency, "last_error": self._last.get(name)}
