"""The scorer that comes with the service: trained on all of both sources, written with its provenance."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.routing import training
from benchmarks.routing.data import CHEAP, STRONG, Examples
from deployments.complexity import EMBEDDER, PACKAGED, from_bytes, to_bytes
from deployments.complexity_ranks import RANKS, quantiles

ORIGIN = "https://github.com/lm-sys/RouteLLM, commit 0b64fdafe049e596a3f5657c219329f24af24198"
LICENCE = "responses Apache-2.0; texts of MMLU and GSM8K MIT"


def package(sources: Mapping[str, Examples], seed: int, path: Path | None, console: Console) -> Path:
    """Train and write; returns where. `path`: the package's own, if not given."""
    path = path or PACKAGED
    provenance = {
        "data": ORIGIN,
        "licence": LICENCE,
        "cheap": CHEAP,
        "strong": STRONG,
        "embedder": EMBEDDER,
        "seed": seed,
        "trained with": {name: version(name) for name in ("numpy", "scikit-learn", "torch")},
        "prompts": {name: len(examples) for name, examples in sources.items()},
        "wrong by the cheap and right by the strong model": {
            name: int((examples.strong > examples.cheap).sum()) for name, examples in sources.items()
        },
    }
    with console.status("training"):
        data = to_bytes(training.train(sources, seed, provenance))
    scorer = from_bytes(data)
    scores = [scorer.scores(examples.features, examples.embeddings) for examples in sources.values()]
    ranks = {"of": "the prompts that it was trained on", "quantiles": quantiles(np.concatenate(scores).tolist())}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(data)
    draft.replace(path)
    path.with_suffix(".json").write_text(json.dumps(provenance, indent=1) + "\n")
    path.with_name(RANKS.name).write_text(json.dumps(ranks) + "\n")
    return path
