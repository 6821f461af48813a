"""A campaign in figures: what was done, what came of it, and how long the service took to answer again."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator

from domain.turn import TurnStatus
from tests.faults.campaign import Result, turns_of
from tests.faults.injector import Injected
from tests.faults.violations import Violation


def lines(result: Result, violations: list[Violation]) -> Iterator[str]:
    """For people, and for the report: Markdown."""
    history = result.history
    kinds = Counter(call.kind for call in history.operations)
    outcomes = Counter(call.outcome for call in history.operations)
    faults = sum(len(one.names) for one in result.injected)
    yield f"Seed {result.seed}: {len(history.operations)} operations, {faults} faults in {result.seconds:.0f} s."
    yield ""
    yield "Operations: " + ", ".join(f"{kind} {number}" for kind, number in kinds.most_common()) + "."
    yield "Answers: " + ", ".join(f"{name} {number}" for name, number in outcomes.most_common()) + "."
    ends = ", ".join(f"{status.value} {turns_of(history, status)}" for status in TurnStatus if status.ended)
    yield f"Turns: {ends}. Events of streams: {sum(len(call.events) for call in history.operations)}."
    yield ""
    yield "| fault | times | answers again after, s: p50 | longest |"
    yield "|---|---|---|---|"
    for names, ones in sorted(_by_name(result.injected).items()):
        times = [one.recovered for one in ones if one.recovered is not None]
        shown = f"{statistics.median(times):.1f} | {max(times):.1f}" if times else "never | never"
        yield f"| {names} | {len(ones)} | {shown} |"
    yield ""
    if not violations:
        yield "Nothing contradicts a sequential conversation."
    for name, number in Counter(one.name for one in violations).most_common():
        first = next(one for one in violations if one.name == name)
        yield f"- {number} × {first}"


def _by_name(injected: list[Injected]) -> dict[str, list[Injected]]:
    found: dict[str, list[Injected]] = defaultdict(list)
    for one in injected:
        found[" and ".join(sorted(one.names))].append(one)
    return {names: ones for names, ones in found.items() if " and " not in names} | _together(found)


def _together(found: dict[str, list[Injected]]) -> dict[str, list[Injected]]:
    ones = [one for names, listed in found.items() if " and " in names for one in listed]
    return {"two of these at once": ones} if ones else {}
