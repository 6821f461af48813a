"""`python -m benchmarks entities`: how many slot values are found in Bitext's and SGD's texts, and what that costs.

A find is right if its slot and both offsets are. Learned from templates that the test part does not have.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from benchmarks.entities import bitext, sgd, strangers
from benchmarks.entities.scoring import ALL, Score, score
from benchmarks.entities.speed import Cost, large_list, per_text
from benchmarks.entities.typos import mistyped
from deployments.entities.annotated import Annotated
from deployments.entities.extractor import Extractor
from deployments.entities.learning import learn

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
BAR, AIM = 0.90, 0.95
SHARES = (0.1, 0.2)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the data sets ({DATA})")
    parser.add_argument("--seeds", type=int, default=5, help="of typing mistakes (5)")
    parser.add_argument("--names", type=int, default=50_000, help="of the list whose cost is measured (50,000)")
    parser.set_defaults(run=measure)


def measure(chosen: argparse.Namespace, console: Console) -> None:
    """Measure and print all tables."""
    try:
        examples = bitext.load(chosen.data)
        dialogues = sgd.load(chosen.data, sgd.TEST)
        foreign = strangers.texts(chosen.data)
    except OSError as error:
        missing = error.filename or chosen.data
        console.print(
            f"{missing} is missing: name its folder with --data or BRAIN_EVAL_DATA", markup=False, soft_wrap=True
        )
        raise SystemExit(2) from None
    train, test = bitext.split(examples)
    extractor = _learned(train)
    plain = score(extractor, test)
    console.print(_slots(plain, f"Bitext e-commerce: {len(train):,} texts to learn from, {len(test):,} to test"))
    met = "reaches the aim" if plain.f1(ALL) >= AIM else "reaches the bar" if plain.f1(ALL) >= BAR else "misses the bar"
    console.print(f"F1 {plain.f1(ALL):.4f} (micro), {plain.macro():.4f} (macro): {met} (bar {BAR}, aim {AIM})")
    console.print(_mistakes(extractor, test, chosen.seeds))
    console.print(_slots(_unseen(examples), "Bitext, values and templates not learned from (5 folds of values)"))
    console.print(_dialogues(dialogues))
    misread = strangers.misread(foreign)
    shown = ", ".join(f"{said} → {name} ({count})" for (said, name), count in misread.most_common(15))
    console.print(
        f"BANKING77 and CLINC150, {len(strangers.NAMES)} names of a shop and the colours: {misread.total()} finds that "
        f"are not letter by letter in {len(foreign):,} texts: {shown}",
        markup=False,
    )
    _costs(extractor, [example.text for example in test], chosen.names, console)


def _learned(examples: Sequence[Annotated]) -> Extractor:
    learned = learn(examples)
    return Extractor(learned.slots, ordinary=learned.ordinary)


def _unseen(examples: Sequence[Annotated]) -> Score:
    """Each slot's values dealt out over five folds; a fold's texts are tested by what the others taught, but for their
    templates."""
    values: dict[str, set[str]] = {}
    for example in examples:
        for span in example.spans:
            values.setdefault(span.slot, set()).add(str(span.value))
    places = {(slot, value): place % 5 for slot, own in values.items() for place, value in enumerate(sorted(own))}
    total = Score()
    for fold in range(5):
        hidden = [e for e in examples if e.spans and places[e.spans[0].slot, str(e.spans[0].value)] == fold]
        rest = [e for e in examples if not (e.spans and places[e.spans[0].slot, str(e.spans[0].value)] == fold)]
        train, _ = bitext.split(rest)
        _, test = bitext.split(hidden)
        part = score(_learned(train), test)
        for sums, counts in ((total.right, part.right), (total.found, part.found), (total.wanted, part.wanted)):
            sums.update(counts)
    return total


def _slots(result: Score, title: str) -> Table:
    table = Table("slot", "values", "precision", "recall", "F1", title=title)
    for slot in result.slots:
        figures = (result.precision(slot), result.recall(slot), result.f1(slot))
        table.add_row(slot, f"{result.wanted[slot]:,}", *(f"{figure:.4f}" for figure in figures))
    return table


def _mistakes(extractor: Extractor, test: Sequence[Annotated], seeds: int) -> Table:
    table = Table(
        "words mistyped", "F1", "precision", "recall", title=f"Bitext, test part with typing mistakes ({seeds} seeds)"
    )
    for share in SHARES:
        scores = [score(extractor, mistyped(test, share, seed)) for seed in range(seeds)]
        f1 = [one.f1(ALL) for one in scores]
        spread = f" ± {stdev(f1):.4f}" if seeds > 1 else ""
        precision, recall = (
            mean(rate(ALL) for rate in rates) for rates in zip(*((s.precision, s.recall) for s in scores), strict=True)
        )
        table.add_row(f"{share:.0%}", f"{mean(f1):.4f}{spread}", f"{precision:.4f}", f"{recall:.4f}")
    return table


def _dialogues(dialogues: list[Annotated]) -> Table:
    table = Table("kind", "values", "exact offsets", "right meaning", title="SGD: the built-in kinds, nothing learned")
    for row in sgd.meanings(dialogues):
        shares = (row.found / max(1, row.wanted), row.meant / max(1, row.wanted))
        table.add_row(row.kind, f"{row.wanted:,}", *(f"{share:.4f}" for share in shares))
    return table


def _costs(extractor: Extractor, texts: Sequence[str], names: int, console: Console) -> None:
    table = Table("what", "median", "99 %", title="milliseconds a text (processor time, one thread)")
    with console.status(f"building a list of {names:,} names"):
        products = large_list(names, seed=1)
    rows: list[tuple[str, Cost]] = [
        (f"Bitext's test part, {len(extractor.slots)} learned slots", per_text(extractor, texts)),
        (f"a list of {products.names:,} names", products.cost),
    ]
    for what, cost in rows:
        table.add_row(what, f"{cost.median:.3f}", f"{cost.slow:.3f}")
    console.print(table)
    console.print(
        f"{products.names:,} names: built in {products.building:.1f} s, {products.memory:.0f} MiB; "
        f"{products.found:.1%} of the names found (one in four misspelt)"
    )
