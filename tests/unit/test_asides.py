"""Generations beside a turn: none outlives what failed, and a charge that is lost is told of."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from actors.asides import generated, surely
from domain.errors import BrainError, NotFound, Unavailable
from domain.generation import GenerationRequest, Outcome

REQUEST = GenerationRequest("ten_1", "turn_1", 1, "m", [{"role": "user", "content": "hi"}], {})


class Endless:
    """Never answers, and cannot be cancelled."""

    def __init__(self, error: Exception) -> None:
        self.error, self.closed = error, asyncio.Event()

    async def generate(self, request: GenerationRequest) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()
        raise AssertionError

    async def cancel(self, request: GenerationRequest) -> None:
        raise self.error


def parts(llm: object = None) -> Any:
    return SimpleNamespace(llm=llm, endings=set())


async def nowhere(outcome: Outcome) -> None:
    raise AssertionError("it was not cut off")


async def test_a_generation_that_cannot_be_ended_is_closed_with_the_error() -> None:
    llm = Endless(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        await generated(parts(llm), REQUEST, nowhere, within=0.01)
    async with asyncio.timeout(5):
        await llm.closed.wait()


@pytest.mark.parametrize(
    ("error", "level"),
    [(Unavailable("away"), logging.WARNING), (NotFound("deleted, and charged for"), logging.INFO)],
    ids=["lost", "charged"],
)
async def test_a_lost_charge_is_a_warning(error: BrainError, level: int, caplog: pytest.LogCaptureFixture) -> None:
    async def settling() -> None:
        raise error

    with caplog.at_level(logging.INFO, "brain.asides"):
        await surely(parts(), settling())
    [told] = caplog.records
    assert told.levelno == level and str(error) in told.getMessage()
