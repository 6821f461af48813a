"""`brain route train`: a tenant's own complexity score, from the feedback on its answers."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from serve_app.cli.database import with_database
from serve_app.cli.options import Data, read_settings
from serve_app.embedded.refusal import Refusal

if TYPE_CHECKING:
    from storage.complexity_scorers import Example

FEWEST = 50
AT_ONCE = 64  # texts embedded in one step


def train(
    tenant: Annotated[str, typer.Option(help="Whose feedback, and whose choice of models.")],
    cheap: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="The model (or models) whose failures count: the cheaper side; repeatable."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Feedback below this says that the answer did not do.")
    ] = 0.5,
    rollback: Annotated[
        int | None, typer.Option(min=0, help="Train nothing: make this version active; 0 is the score that ships.")
    ] = None,
    data: Data = None,
) -> None:
    """Learn from feedback which of a tenant's messages the cheap model does not do for.

    It starts from the score that ships and corrects it as far as the examples bear it out; 50 are of use. Replicas
    take it up within 15 s. The embedder is that of BRAIN_EMBEDDER_MODEL, which the service must use too.
    """
    from storage import complexity_scorers

    if rollback is not None:
        with_database(data, lambda url: _roll_back(url, tenant, rollback))
        return

    def work(url: str) -> None:
        found = _of_cheap(list(complexity_scorers.examples(url, tenant)), tenant, cheap or [])
        name, artefact, metrics = asyncio.run(_fitted(found, threshold))
        version = complexity_scorers.put(url, tenant, name, artefact, metrics)
        typer.echo(f"version {version}: {metrics['examples']} answers, of which {metrics['did_not_do']} did not do")

    with_database(data, work)


def _roll_back(url: str, tenant: str, version: int) -> None:
    from storage import complexity_scorers

    if not complexity_scorers.activate(url, tenant, version or None):
        raise Refusal(f"tenant {tenant} has no scorer of version {version}")
    typer.echo(f"version {version} is active" if version else "the score that ships is active")


def _of_cheap(found: "list[Example]", tenant: str, cheap: list[str]) -> "list[Example]":
    counts = Counter(one.model for one in found)
    told = ", ".join(f"{model} ({n})" for model, n in counts.most_common()) or "none"
    if len(counts) > 1 and not cheap:
        raise Refusal(f"several models got feedback: {told}. Say with --cheap which of them is the cheaper side")
    kept = [one for one in found if not cheap or one.model in cheap]
    if len(kept) < FEWEST:
        raise Refusal(f"{len(kept)} answers of tenant {tenant} got feedback, {FEWEST} are needed (by model: {told})")
    return kept


async def _fitted(found: "list[Example]", threshold: float) -> tuple[str, bytes, dict[str, object]]:
    import numpy as np

    from deployments.complexity_ranks import quantiles
    from deployments.complexity_training import fit
    from deployments.embedder import Embedder

    settings = read_settings()
    if settings.embedder_url is not None:
        raise Refusal("a complexity score can be trained with a local embedder only: unset BRAIN_EMBEDDER_URL")
    embedder = Embedder(settings.embedder_model, precision=settings.embedder_precision)
    name = (await embedder.describe()).name
    steps = range(0, len(found), AT_ONCE)
    vectors = []
    for start in track(steps, "Embedding", console=Console(stderr=True), transient=True):
        vectors += await embedder.embed_many([one.text for one in found[start : start + AT_ONCE]])
    failed = [one.score < threshold for one in found]
    try:
        scorer = await asyncio.to_thread(fit, [one.text for one in found], vectors, failed)
    except ValueError as error:
        raise Refusal(f"this feedback cannot be learned from: {error}") from None
    scores = scorer.scores([one.text for one in found], np.asarray(vectors, np.float32))
    metrics = {"examples": len(found), "did_not_do": sum(failed), "threshold": threshold}
    return name, scorer.to_bytes(), {**metrics, "quantiles": quantiles(scores.tolist())}
