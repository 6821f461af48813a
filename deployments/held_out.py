"""How good a head is on examples that it was not trained from."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from deployments.understanding import Encode, Evaluation, Progress, Tuning, evaluate, train_any
from domain.errors import InvalidExamples
from domain.intents import TrainingEffort, TrainingRequest
from domain.understanding import Example

FOLDS = 3
MANY = 2000  # examples; of more, one fold is enough
MEASURES = ("accuracy", "macro_f1", "expected_calibration_error")
Split = tuple[list[Example], list[Example]]


def held_out(
    request: TrainingRequest,
    effort: TrainingEffort,
    encode: Encode,
    progress: Progress = lambda share, stage: None,
    *,
    tuning: Tuning | None = None,
    embedder: str = "",
    seed: int = 0,
) -> dict[str, float] | None:
    """MEASURES of heads of this effort: on the request's own validation examples, else as a mean over stratified folds.
    None where intents have no example to spare. The same for the same `seed`."""
    splits = list(_splits(request, seed))
    found: list[Evaluation] = []
    for number, (kept, asked) in enumerate(splits):

        def told(share: float, stage: str, number: int = number) -> None:
            progress((number + share) / len(splits), stage)

        try:
            model = train_any(
                effort,
                kept,
                encode,
                tuning,
                embedder=embedder,
                descriptions=request.descriptions,
                progress=told,
                seed=seed,
            )
        except InvalidExamples:
            return None
        found.append(evaluate(model, asked, encode, tuning.states_of if tuning else None))
    if not found:
        return None
    return {name: sum(getattr(one, name) for one in found) / len(found) for name in MEASURES}


def better(first: dict[str, float] | None, best: dict[str, float] | None) -> bool:
    """Whether what took longer was worth it: more accurate, or as accurate and nearer to the truth about itself."""
    if first is None or best is None:
        return first is None
    return (best["accuracy"], -best["expected_calibration_error"]) > (
        first["accuracy"],
        -first["expected_calibration_error"],
    )


def _splits(request: TrainingRequest, seed: int) -> Iterator[Split]:
    if request.validation:
        yield list(request.examples), list(request.validation)
        return
    order = list(request.examples)
    random.Random(seed).shuffle(order)
    seen: dict[str, int] = defaultdict(int)
    folds: list[list[Example]] = [[] for _ in range(FOLDS)]
    for one in order:  # each intent's examples go round the folds
        folds[seen[one.intent] % FOLDS].append(one)
        seen[one.intent] += 1
    for number in range(FOLDS if len(order) <= MANY else 1):
        kept = [one for other in range(FOLDS) if other != number for one in folds[other]]
        asked = _known(folds[number], kept)
        if asked and len({one.intent for one in kept}) > 1:
            yield kept, asked


def _known(asked: Sequence[Example], kept: Sequence[Example]) -> list[Example]:
    """Those whose intent the head has heard of, in other words."""
    intents, texts = {one.intent for one in kept}, {one.text for one in kept}
    return [one for one in asked if one.intent in intents and one.text not in texts]
