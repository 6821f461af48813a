"""How many replicas a vLLM model needs: by its queue and its KV cache, and none while nobody asks.

To plug it in where the model's deployment is built:

    class LocalServer(ReportsLoad, LLMServer): ...          # of ray.serve.llm, so that each replica tells its load
    build_llm_deployment(
        LLMConfig(..., deployment_config={"autoscaling_config": autoscaling_config(options.scaling), ...}),
        deployment_cls=LocalServer,
    )

Serve asks each replica for `record_autoscaling_stats` five times in a look-back period, averages what it hears over
that period, and calls the policy in its controller ten times a second. It applies the bounds, the delays and the
factors of the configuration itself, and starts the first replica of a model that has none as soon as a handle reports a
request: the policy is not asked then. So what the policy answers is only the number that the present load needs.

Keep a model's `max_ongoing_requests` near what one replica's cache holds: what is more goes to a replica that has room,
or waits in a queue that is fair among tenants, and counts as waiting; what waits in an engine stays with that engine.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deployments.engine_metrics import stat_loggers

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

    from domain.local_model import Scaling

log = logging.getLogger(__name__)

USUAL_STEP, LULL, LATELY = 0.01, 1.0, 20  # seconds; seconds; steps
POLICY = "deployments.autoscaling:QueueAndCache"
RUNNING, WAITING, CACHE = "requests_running", "requests_waiting", "kv_cache_usage"

TARGET_CACHE = 0.7  # of the KV cache: above it, vLLM soon evicts prefixes, then preempts requests
DOWNSCALING = 0.5  # of the replicas too many go at a time: a lull is seldom the end, and a start takes minutes
TOLERATED_QUEUE = 1.0  # waiting requests a replica: vLLM admits between steps, so a few wait at any time


def autoscaling_config(scaling: "Scaling") -> dict[str, Any]:
    """Serve's `autoscaling_config` of a model with these bounds, scaled by `QueueAndCache`."""
    return {
        **scaling.model_dump(exclude_none=True),
        "downscaling_factor": DOWNSCALING,
        "policy": {"policy_function": POLICY},
    }


def replicas_needed(load: Mapping[str, float], replicas: int, target_cache: float, tolerated_queue: float) -> float:
    """The number of replicas, a fraction of one too, that serve `load`: the sums over the `replicas` that run now.

    By cache: what the running requests hold, and what those that wait will hold if they are like them, at
    `target_cache` of each replica. By queue: once more than `tolerated_queue` requests a replica wait, the replicas are
    full for whatever reason (compute, `max_num_seqs`), and as many more are needed as more requests wait than run.
    """
    running, waiting = load.get(RUNNING, 0.0), load.get(WAITING, 0.0)
    if running + waiting <= 0:
        return 0.0
    growth = 1 + waiting / max(running, 1.0)
    by_cache = load.get(CACHE, 0.0) * growth / target_cache
    by_queue = replicas * growth if waiting > tolerated_queue * replicas else 0.0
    return max(by_cache, by_queue)


class QueueAndCache:
    """The policy as Serve calls it (`policy_function` of an `autoscaling_config`; `policy_kwargs` are its arguments).

    Until the first replica has told its load, the number of requests counts, at `target_ongoing_requests` a replica.
    """

    def __init__(self, target_cache: float = TARGET_CACHE, tolerated_queue: float = TOLERATED_QUEUE) -> None:
        self._target_cache, self._tolerated_queue = target_cache, tolerated_queue

    def __call__(self, ctx: "AutoscalingContext") -> tuple[float, dict[str, Any]]:
        total = ctx.total_num_requests
        replicas = ctx.current_num_replicas
        if replicas == 0:
            return float(total > 0), {}
        told = {name: sum(values.values()) for name, values in (ctx.aggregated_metrics or {}).items()}
        if CACHE not in told:
            return total / ctx.config.get_target_ongoing_requests(), {}
        told[WAITING] = told.get(WAITING, 0.0) + (ctx.total_queued_requests or 0.0)
        needed = replicas_needed(told, replicas, self._target_cache, self._tolerated_queue)
        # a request that the engines do not show yet (or no longer) still keeps the last replica
        return max(needed, float(total > 0)), {}


@dataclass(slots=True)
class EngineLoad:
    """What the engines of one replica last told: vLLM's stat logger, of which only `record` does something here.

    `finished` hears the id of each request as soon as its last token is there. `step`: seconds from one step of the
    engine to the next, lately, while it has work.
    """

    finished: Callable[[str], None] = lambda request_id: None
    step: float = USUAL_STEP
    _stepped: float = 0.0
    _told: dict[int, Any] = field(default_factory=dict)

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        now = time.monotonic()
        if (since := now - self._stepped) < LULL:
            self.step += (since - self.step) / LATELY
        self._stepped = now
        if scheduler_stats is not None:
            self._told[engine_idx] = scheduler_stats
        for ended in iteration_stats.finished_requests if iteration_stats is not None else ():
            self.finished(ended.request_id)

    def log_engine_initialized(self) -> None: ...

    def log(self) -> None: ...

    def record_sleep_state(self, *_: Any) -> None: ...

    def stats(self) -> dict[str, float]:
        """For Serve: sums over the engines, of the cache the share of all; nothing before the first step."""
        told = self._told.values()
        if not told:
            return {}
        return {
            RUNNING: sum(one.num_running_reqs for one in told),
            WAITING: sum(one.num_waiting_reqs + one.num_skipped_waiting_reqs for one in told),
            CACHE: sum(one.kv_cache_usage for one in told) / len(told),
        }


class ReportsLoad:
    """Mixin before `LLMServer` (ray.serve.llm): tells Serve's autoscaler the queue and the KV cache of its engine.

    vLLM's gauges `vllm:num_requests_running`, `vllm:num_requests_waiting` and `vllm:kv_cache_usage_perc` cannot be read
    back from a replica, because Ray exports them as its own metrics; so this listens beside them.
    """

    engine: Any

    async def start(self) -> None:
        await super().start()  # type: ignore[misc]
        self._load = EngineLoad()
        loggers = stat_loggers(self.engine)
        if loggers is None:  # `disable_log_stats`, or another engine: the number of requests decides
            log.warning("the engine tells no statistics; its model scales by its requests alone")
        else:
            loggers.append(self._load)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve."""
        return self._load.stats()
