"""How many replicas a vLLM model needs, decided by the policy alone and by Serve's own code around it."""

import pickle
from types import SimpleNamespace

import pytest
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments import autoscaling
from deployments.autoscaling import CACHE, RUNNING, WAITING, EngineLoad, QueueAndCache, ReportsLoad, autoscaling_config
from domain.local_model import Scaling

NAME = DeploymentID("LocalLLM:m", "brain")
SCALING = Scaling(min_replicas=0, max_replicas=8, target_ongoing_requests=16, upscale_delay_s=0, downscale_delay_s=0)


def context(running, load=None, queued=0.0, total=None, target=None, scaling=SCALING):
    """`load`: sums over the replicas, told by the first of them; `total`: requests as Serve counts them."""
    replicas = [ReplicaID(str(number), NAME) for number in range(running)]
    told = {name: {replicas[0]: value} for name, value in (load or {}).items()} if replicas else {}
    counted = (load or {}).get(RUNNING, 0) + (load or {}).get(WAITING, 0) + queued if total is None else total
    return AutoscalingContext(
        deployment_id=NAME,
        deployment_name=NAME.name,
        app_name=NAME.app_name,
        current_num_replicas=running,
        target_num_replicas=running if target is None else target,
        running_replicas=replicas,
        total_num_requests=float(counted),
        total_queued_requests=queued,
        aggregated_metrics=told,
        raw_metrics=None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=8,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig.model_validate(autoscaling_config(scaling)),
    )


def needed(*arguments, **fields):
    return QueueAndCache(target_cache=0.5, tolerated_queue=1)(context(*arguments, **fields))[0]


def test_replicas_follow_the_cache_that_running_requests_hold():
    assert needed(2, {RUNNING: 20, WAITING: 0, CACHE: 1.0}) == 2
    assert needed(2, {RUNNING: 30, WAITING: 0, CACHE: 1.6}) == pytest.approx(3.2)
    assert needed(4, {RUNNING: 6, WAITING: 0, CACHE: 0.3}) == 1


def test_what_waits_counts_with_the_cache_that_it_will_hold():
    assert needed(1, {RUNNING: 20, WAITING: 0, CACHE: 0.8}, queued=20.0) == pytest.approx(3.2)
    assert needed(1, {RUNNING: 20, WAITING: 20, CACHE: 0.8}) == pytest.approx(3.2)


def test_a_queue_before_a_small_cache_use_means_that_compute_is_short():
    assert needed(2, {RUNNING: 10, WAITING: 30, CACHE: 0.1}) == 8
    assert needed(2, {RUNNING: 10, WAITING: 2, CACHE: 0.1}) == 1, "one a replica is no queue"


def test_none_are_needed_while_nobody_asks_and_one_while_somebody_does():
    assert needed(3, {RUNNING: 0, WAITING: 0, CACHE: 0.0}) == 0
    assert needed(1, {RUNNING: 0, WAITING: 0, CACHE: 0.0}, total=1) == 1, "a request that the engine does not show yet"
    assert needed(0) == 0
    assert needed(0, queued=1.0) == 1


def test_requests_count_until_a_replica_has_told_its_load():
    assert needed(1, total=48) == 3


@pytest.mark.parametrize(
    ("running", "fields", "decided"),
    [
        (0, {}, 0),
        (0, {"queued": 1.0}, 1),
        (0, {"queued": 500.0}, 1),
        (0, {"queued": 1.0, "target": 1}, 1),
        (1, {"load": {RUNNING: 40, WAITING: 40, CACHE: 0.7}}, 2),
        (1, {"load": {RUNNING: 0, WAITING: 0, CACHE: 0.0}}, 0),
        (5, {"load": {RUNNING: 0, WAITING: 0, CACHE: 0.0}}, 3),
        (5, {"load": {RUNNING: 4, WAITING: 0, CACHE: 0.7}}, 3),
    ],
)
def test_serves_own_code_decides_with_it(running, fields, decided):
    """From none on the first queued request; to none at the end; and half of those too many at a time between."""
    config = AutoscalingConfig.model_validate(autoscaling_config(SCALING))
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))
    assert policy(context(running, **fields))[0] == decided


def test_the_policy_travels_to_the_controller_and_takes_its_arguments_from_the_configuration():
    config = AutoscalingConfig.model_validate(
        {
            **autoscaling_config(SCALING),
            "policy": {"policy_function": autoscaling.POLICY, "policy_kwargs": {"target_cache": 0.25}},
        }
    )
    policy = _resolve_policy_callable(pickle.loads(pickle.dumps(config)).policy)  # noqa: S301
    load = {RUNNING: 1, WAITING: 0, CACHE: 1.0}
    assert policy(context(1, load))[0] == 4


def stats(running, waiting, cache, skipped=0):
    return SimpleNamespace(
        num_running_reqs=running, num_waiting_reqs=waiting, num_skipped_waiting_reqs=skipped, kv_cache_usage=cache
    )


def test_an_engine_tells_nothing_before_its_first_step_and_then_its_last_one():
    load = EngineLoad()
    assert load.stats() == {}
    load.record(stats(1, 2, 0.5), None)
    load.record(None, None)
    load.record(stats(3, 4, 0.25, skipped=1), iteration(), mm_cache_stats=None, engine_idx=0)
    assert load.stats() == {RUNNING: 3, WAITING: 5, CACHE: 0.25}
    load.record(stats(1, 0, 0.75), None, engine_idx=1)
    assert load.stats() == {RUNNING: 4, WAITING: 5, CACHE: 0.5}, "two engines share one replica's cache"


def iteration(*finished):
    return SimpleNamespace(finished_requests=[SimpleNamespace(request_id=name) for name in finished])


def test_the_end_of_a_request_is_told_with_the_step_that_brought_it():
    ended = []
    load = EngineLoad(ended.append)
    load.record(stats(2, 0, 0.5), iteration())
    load.record(stats(0, 0, 0.5), iteration("chatcmpl-a", "chatcmpl-b"))
    assert ended == ["chatcmpl-a", "chatcmpl-b"]


def test_a_step_is_as_long_as_the_last_ones_were_and_a_lull_is_none(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(autoscaling.time, "monotonic", lambda: now[0])
    load = EngineLoad()
    for _ in range(200):
        now[0] += 0.05
        load.record(stats(2, 0, 0.5), None)
    assert load.step == pytest.approx(0.05, rel=0.01)
    now[0] += 60
    load.record(stats(1, 0, 0.5), None)
    assert load.step == pytest.approx(0.05, rel=0.01)


class Server:
    """As `LLMServer` starts: its engine stands once `start` has run."""

    manager: object = None

    async def start(self):
        self.engine = SimpleNamespace(_engine_client=SimpleNamespace(logger_manager=self.manager))


class Reporting(ReportsLoad, Server):
    pass


async def test_a_replica_listens_to_its_engine_from_the_start():
    server = Reporting()
    server.manager = SimpleNamespace(stat_loggers=[])
    await server.start()
    server.manager.stat_loggers[0].record(stats(2, 1, 0.5), None)
    assert await server.record_autoscaling_stats() == {RUNNING: 2, WAITING: 1, CACHE: 0.5}


async def test_a_replica_whose_engine_keeps_no_statistics_says_so_and_works(caplog):
    server = Reporting()
    await server.start()
    assert await server.record_autoscaling_stats() == {}
    assert "by its requests alone" in caplog.text
