"""How long a decision takes on top of the embedding: text features, networks, words, trees and gate, in one thread."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.measurements import percentile
from benchmarks.routing.data import Examples
from deployments.complexity import packaged

TIMED = 2000  # of each source
WARM_UP = 100


def measure(sources: Mapping[str, Examples], console: Console) -> None:
    """Print p50 and p99 of single decisions: wall time, and time on the processor, which others disturb less."""
    scorer = packaged()
    table = Table("data", "characters, mean", "wall p50", "p99", "CPU p50", "p99", title="One decision, ms")
    with threadpool_limits(1):
        for name, examples in sources.items():
            step = max(1, len(examples) // TIMED)
            texts, vectors = examples.texts[::step], examples.embeddings[::step].tolist()
            wall, cpu = _timed(scorer.score, texts, vectors)
            figures = (percentile(wall, 50), percentile(wall, 99), percentile(cpu, 50), percentile(cpu, 99))
            mean = sum(map(len, texts)) / len(texts)
            table.add_row(name, f"{mean:.0f}", *(f"{figure:.3f}" for figure in figures))
    console.print(table)


def _timed(score, texts, vectors) -> tuple[list[float], list[float]]:  # type: ignore[no-untyped-def]
    for text, vector in zip(texts[:WARM_UP], vectors, strict=False):
        score(text, vector)
    wall, cpu = [], []
    for text, vector in zip(texts, vectors, strict=True):
        began, ran = time.perf_counter(), time.thread_time()
        score(text, vector)
        cpu.append(1000 * (time.thread_time() - ran))
        wall.append(1000 * (time.perf_counter() - began))
    return wall, cpu
