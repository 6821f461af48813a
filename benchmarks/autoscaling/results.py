"""What a run cost and how long its requests waited."""

import dataclasses
import json
from pathlib import Path

from benchmarks.autoscaling.simulation import Simulation
from benchmarks.autoscaling.variants import Variant
from benchmarks.measurements import percentile

LONG = 1.0  # seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One variant under one trace. Waits: seconds to the first token or the answer, beyond those on an idle replica."""

    kind: str
    trace: str
    variant: str
    requests: int
    hours: float
    replica_hours: float
    usd: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    waited_long: float
    slowed_p95: float
    """How many times as long as alone an answer took once it had begun; 1 where there is none."""
    peak: int
    starts: int
    cold_starts: int


def result(variant: Variant, trace: str, run: Simulation) -> Result:
    model = variant.model
    waits = [max(0.0, job.first_at - job.arrived - model.alone_s(job.prompt)) for job in run.jobs]
    slowed = [
        (job.done_at - job.first_at) / (model.before_s + job.answer * model.answer_s)
        for job in run.jobs
        if model.answer_s and job.answer
    ]
    hours = run.replica_seconds / 3600
    return Result(
        kind=model.kind,
        trace=trace,
        variant=variant.label,
        requests=len(run.jobs),
        hours=run.ends / 3600,
        replica_hours=hours,
        usd=hours * model.usd_hour,
        wait_p50_s=percentile(waits, 50),
        wait_p95_s=percentile(waits, 95),
        wait_p99_s=percentile(waits, 99),
        waited_long=sum(wait > LONG for wait in waits) / len(waits),
        slowed_p95=percentile(slowed, 95) if slowed else 1.0,
        peak=run.peak,
        starts=run.starts,
        cold_starts=run.cold_starts,
    )


def write(path: Path, seed: int, prices: dict[str, float], found: list[Result]) -> None:
    """JSON; the same bytes for the same seed, configuration and trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"seed": seed, "usd_hour": prices, "results": [dataclasses.asdict(one) for one in found]}
    path.write_text(json.dumps(body, indent=1) + "\n")
