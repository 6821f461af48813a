"""From replies to the figures of one cell of the table."""

import dataclasses
import math

from benchmarks.load import Reply, Window
from benchmarks.workloads import Workload


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """One system under one workload. Times in milliseconds, memory in bytes."""

    system: str
    load: str
    requests_per_s: float
    tokens_per_s: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float | None
    first_p99_ms: float | None
    events_per_reply: float | None
    offered_share: float | None
    replies: int
    wrong: int
    an_error: str | None
    rss_bytes: int = 0
    pss_bytes: int | None = None


def measure(system: str, load: Workload, window: Window) -> Measurement:
    """Latencies of the replies that began in the window; rates of all that overlap it.

    A reply counts towards a rate with the share of its time that lies in the window. So a slow system with 32 long
    replies in flight is neither cut off at the window's edges nor measured while its last replies run alone.
    """
    right = [reply for reply in window.replies if not reply.wrong]
    began = [reply for reply in right if window.opens <= reply.started < window.closes] or right
    first = [(reply.first - reply.started) * 1000 for reply in began if reply.first is not None]
    latency = [(reply.ended - reply.started) * 1000 for reply in began]
    seconds = window.closes - window.opens
    tokens = sum(_share(reply, window) * reply.tokens for reply in right) / seconds
    wrong = [reply.wrong for reply in window.replies if reply.wrong]
    return Measurement(
        system=system,
        load=load.name,
        requests_per_s=sum(_share(reply, window) for reply in right) / seconds,
        tokens_per_s=tokens,
        p50_ms=percentile(latency, 50),
        p99_ms=percentile(latency, 99),
        first_p50_ms=percentile(first, 50) if first else None,
        first_p99_ms=percentile(first, 99) if first else None,
        events_per_reply=sum(r.events for r in began) / len(began) if load.streamed and began else None,
        offered_share=tokens / load.offered if load.offered else None,
        replies=len(window.replies),
        wrong=len(wrong),
        an_error=wrong[0] if wrong else None,
    )


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that `percent` per cent of the values do not exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _share(reply: Reply, window: Window) -> float:
    inside = min(reply.ended, window.closes) - max(reply.started, window.opens)
    return max(0.0, inside) / max(reply.ended - reply.started, 1e-9)
