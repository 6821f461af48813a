"""What a head costs where it matters: training with embedding, and one message beside its embedding."""

import statistics
import time
from collections.abc import Callable

from rich.console import Console

from benchmarks.understanding.data import Setting, Vectors, sampled
from deployments.understanding import train
from deployments.understanding.training import Effort

MESSAGES = 300


def speed(setting: Setting, vectors: Vectors, console: Console) -> None:
    """Wall time, with as many threads as the machine gives torch and numpy."""
    examples = sampled(setting.train, setting.shots, 1)
    model = vectors.model
    model.encode(["warm"])
    efforts: tuple[Effort, ...] = ("first", "best")
    for effort in efforts:
        began, processor = time.perf_counter(), time.process_time()
        head = train(examples, model.encode, embedder="study", effort=effort)
        wall, processor = time.perf_counter() - began, time.process_time() - processor
        console.print(
            f"{setting.name}, effort {effort}: {len(examples)} examples embedded and trained in {wall:.1f} s "
            f"({processor:.1f} s of processors), artefact {len(head.to_bytes()) / 1024:.0f} KiB",
            soft_wrap=True,
        )
    bare, both = [], []
    for example in setting.test[:MESSAGES]:  # in turn, so that a busy machine slows both
        bare.append(_milliseconds(lambda text: model.encode([text]), example.text))
        both.append(_milliseconds(lambda text: head.predict(text, model.encode([text])[0]), example.text))
    middle, answered = statistics.median(bare), statistics.median(both)
    console.print(
        f"one message, p50 of {len(bare)}: bare encode {middle:.2f} ms, with the head {answered:.2f} ms: "
        f"{answered / middle:.2f} ×"
    )


def _milliseconds(call: Callable[[str], object], text: str) -> float:
    began = time.perf_counter()
    call(text)
    return 1000 * (time.perf_counter() - began)
