"""The rows of the comparison, and in which order systems are started for them."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from benchmarks.systems import Provider, aegra, brain, litellm, passthrough
from benchmarks.systems.environments import pinned
from benchmarks.targets import ChatCompletions, Target
from benchmarks.workloads import Workload

LABELS = {
    "mock": "mock provider, asked directly",
    "passthrough": "bare two-hop Serve pass-through",
    "brain": "this service, named model, nothing kept",
    "brain-kept": "this service, named model, turns kept",
    "brain-auto": "this service, model auto, turns kept",
    "brain-no-writes": "this service, kept, no Postgres writes",
    "litellm": f"LiteLLM proxy {pinned('litellm', 'litellm')} (nothing kept)",
    "aegra": f"Aegra {pinned('aegra', 'aegra-api')} (turns kept)",
}
PEER_ROWS = ("litellm", "aegra")

Start = Callable[[Provider, Path], AbstractContextManager[Mapping[str, Target]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One start of one system: the rows and the workloads that are measured while it runs."""

    rows: tuple[str, ...]
    loads: tuple[Workload, ...]
    start: Start


def stages(rows: Sequence[str], loads: Sequence[Workload], console: Console) -> list[Stage]:
    """What to start one after another. Rows of the service with the same settings share a start."""
    models = sorted({load.model for load in loads})
    every = tuple(loads)
    wanted: list[Stage] = []
    if "mock" in rows:
        wanted.append(Stage(("mock",), every, _mock))
    if "passthrough" in rows:
        wanted.append(Stage(("passthrough",), every, _passthrough))
    if shared := tuple(row for row in ("brain", "brain-kept") if row in rows):
        wanted.append(Stage(shared, every, functools.partial(_brain, kept_row="brain-kept")))
    if "brain-auto" in rows:  # one start a model: `auto` must have exactly one to choose
        for model in models:
            some = tuple(load for load in loads if load.model == model)
            wanted.append(Stage(("brain-auto",), some, functools.partial(_auto, chosen=model)))
    if "brain-no-writes" in rows:
        start = functools.partial(_brain, kept_row="brain-no-writes", env=brain.NO_WRITES)
        wanted.append(Stage(("brain-no-writes",), every, start))
    if "litellm" in rows:
        wanted.append(Stage(("litellm",), every, functools.partial(_litellm, models=models, console=console)))
    if "aegra" in rows:
        wanted.append(Stage(("aegra",), every, functools.partial(_aegra, console=console)))
    return wanted


@contextlib.contextmanager
def _mock(provider: Provider, folder: Path) -> Iterator[Mapping[str, Target]]:
    yield {"mock": ChatCompletions(provider.url, provider.key)}


@contextlib.contextmanager
def _passthrough(provider: Provider, folder: Path) -> Iterator[Mapping[str, Target]]:
    with passthrough.start(provider, folder) as target:
        yield {"passthrough": target}


@contextlib.contextmanager
def _brain(
    provider: Provider, folder: Path, kept_row: str, env: dict[str, str] | None = None
) -> Iterator[Mapping[str, Target]]:
    with brain.start(provider, folder, env=env) as service:
        yield {"brain": service.chat(kept=False), kept_row: service.chat(kept=True)}


@contextlib.contextmanager
def _auto(provider: Provider, folder: Path, chosen: str) -> Iterator[Mapping[str, Target]]:
    with brain.start(provider, folder, models=[chosen]) as service:
        yield {"brain-auto": service.chat(kept=True, name=lambda _: "auto")}


@contextlib.contextmanager
def _litellm(provider: Provider, folder: Path, models: list[str], console: Console) -> Iterator[Mapping[str, Target]]:
    with litellm.start(provider, folder, models, console) as target:
        yield {"litellm": target}


@contextlib.contextmanager
def _aegra(provider: Provider, folder: Path, console: Console) -> Iterator[Mapping[str, Target]]:
    with aegra.start(provider, folder, console) as target:
        yield {"aegra": target}
