"""vLLM's own metrics at a price that does not grow with the tokens.

Its stat logger observes the time between two tokens for each token. Through Ray's metrics that is a Python call in the
replica, and another one in the node's agent, which records each observation of a histogram anew: together about 2 of
71 ms of processor time for an answer of 128 tokens. A sample tells the same distribution.
"""

from collections.abc import Iterable
from typing import Any

ONE_OF = 31  # a prime: it takes turns among the requests that each step of the engine gives a token
OBSERVED = "histogram_inter_token_latency"


def stat_loggers(engine: Any) -> list[Any] | None:
    """What listens to the statistics of this engine of `ray.serve.llm`; None with `disable_log_stats`."""
    manager = getattr(getattr(engine, "_engine_client", None), "logger_manager", None)
    return None if manager is None else manager.stat_loggers


class Sampled:
    """Passes on the first of each `ONE_OF` observations. The histogram's counts are that many times too small."""

    def __init__(self, histogram: Any) -> None:
        self._histogram, self._seen = histogram, 0

    def observe(self, value: float) -> None:
        if self._seen == 0:
            self._histogram.observe(value)
        self._seen = (self._seen + 1) % ONE_OF


def sample_tokens(loggers: Iterable[Any]) -> None:
    """Sample what these stat loggers of vLLM observe for each token: `vllm:inter_token_latency_seconds`."""
    for logger in loggers:
        by_engine = getattr(logger, OBSERVED, None)
        if isinstance(by_engine, dict):
            by_engine.update({engine: Sampled(histogram) for engine, histogram in by_engine.items()})
