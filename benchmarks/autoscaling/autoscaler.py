"""Ray Serve's own autoscaling decisions on simulated time: its policies, delays, factors and averages, called directly.

What is imitated here is only how measurements reach the controller: taken at intervals, kept for the look-back period,
and sent every `metrics_interval_s`; so a decision is some seconds behind, as it is in a cluster.
"""

import contextlib
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ray.serve import autoscaling_policy
from ray.serve._private.autoscaling_metrics_merge import merge_and_aggregate_arrays
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.constants import RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR
from ray.serve.config import AutoscalingConfig, AutoscalingContext

DEPLOYMENT = DeploymentID("mock", "simulation")


class Clock:
    """Stands in for the module `time` where Ray's decision code asks for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


@contextlib.contextmanager
def simulated_time(clock: Clock) -> Iterator[None]:
    """Ray's delays count on `clock` inside of this."""
    real = autoscaling_policy.time
    autoscaling_policy.time = clock
    try:
        yield
    finally:
        autoscaling_policy.time = real


class Reports:
    """Measurements of one source or several, as the controller knows them."""

    def __init__(self, look_back: float, function: str) -> None:
        self._look_back, self._function = look_back, function
        self._taken: dict[Any, deque[tuple[float, float]]] = defaultdict(deque)
        self._sent: dict[Any, np.ndarray] = {}

    def take(self, now: float, values: Mapping[Any, float]) -> None:
        for source, value in values.items():
            self._taken[source].append((now, value))

    def send(self, now: float) -> None:
        for source, points in list(self._taken.items()):
            while points and points[0][0] < now - self._look_back:
                points.popleft()
            if not points:
                del self._taken[source]
        self._sent = {source: np.array(points) for source, points in self._taken.items()}

    def total(self, now: float, sources: Sequence[Any]) -> float | None:
        """The sum over the sources, averaged as Serve does it; None where none of them has reported."""
        found = [self._sent[source] for source in sources if source in self._sent]
        if not found:
            return None
        points = np.concatenate(found)
        offsets = np.cumsum([0, *map(len, found)])
        return float(merge_and_aggregate_arrays(points[:, 0], points[:, 1], offsets, now, self._function))


class Autoscaler:
    """One deployment's. Replicas are named by number."""

    def __init__(self, config: AutoscalingConfig) -> None:
        self.config = config
        self.record_every = min(
            config.look_back_period_s * RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR, config.metrics_interval_s
        )
        self.requests = Reports(config.look_back_period_s, str(config.aggregation_function.value))
        self.custom = Reports(config.look_back_period_s, str(config.aggregation_function.value))
        self._policy = autoscaling_policy._apply_autoscaling_config(_resolve_policy_callable(config.policy))
        self._state: dict[str, Any] = {}

    def decide(self, now: float, target: int, running: Sequence[int]) -> int:
        """How many replicas there shall be; `target`: as last decided, `running`: those that take requests."""
        context = AutoscalingContext(
            deployment_id=DEPLOYMENT,
            deployment_name=DEPLOYMENT.name,
            app_name=DEPLOYMENT.app_name,
            current_num_replicas=len(running),
            target_num_replicas=target,
            running_replicas=[ReplicaID(str(number), DEPLOYMENT) for number in running],
            total_num_requests=lambda: self.requests.total(now, ["queued", *running]) or 0.0,
            total_queued_requests=lambda: self.requests.total(now, ["queued"]) or 0.0,
            aggregated_metrics=lambda: self._aggregated(now, running),
            raw_metrics=None,
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=dict(self._state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now,
            config=self.config,
        )
        decision, state = self._policy(context)
        self._state = dict(state or {})
        return int(max(self.config.min_replicas, min(self.config.max_replicas, math.ceil(decision))))

    def _aggregated(self, now: float, running: Sequence[int]) -> dict[str, dict[ReplicaID, float]]:
        found: dict[str, dict[ReplicaID, float]] = defaultdict(dict)
        names = {name for name, _ in self.custom._sent}
        for name in sorted(names):
            for number in running:
                value = self.custom.total(now, [(name, number)])
                if value is not None:
                    found[name][ReplicaID(str(number), DEPLOYMENT)] = value
        return dict(found)
