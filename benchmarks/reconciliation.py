"""The ledger's tokens beside the provider's own count: lines of differences, from plain rows.

Every call that the provider counted is laid beside the ledger's row for it. The difference (ledger minus provider) has
to be zero where the provider reported its usage; where an answer broke off, nobody reports, and it is the error of the
estimate. vLLM counts too: `vllm_counters` reads its own counters, for the same comparison in sum.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg
from rich.table import Table

Row = Mapping[str, Any] | asyncpg.Record


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn or completion as its client saw it. `message` is unlike that of any other."""

    cause: str
    message: str
    turn_id: str | None
    seen: str


@dataclass(slots=True)
class Line:
    """Calls of one cause and basis. Differences are tokens, ledger minus provider."""

    cause: str
    basis: str
    calls: int = 0
    counted: int = 0
    prompt: int = 0
    completion: int = 0
    absolute: int = 0

    @property
    def difference(self) -> int:
        return self.prompt + self.completion

    @property
    def share(self) -> float:
        """Of what the provider counted."""
        return self.difference / self.counted if self.counted else float(self.difference != 0)


@dataclass(slots=True)
class Reconciliation:
    """`missing`: calls that the provider counted and the ledger does not have; `surplus`: the other way round."""

    lines: list[Line]
    turns: int
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)  # rows called reported of which the provider never told the usage

    def sum(self, basis: str) -> Line:
        whole = Line("all", basis)
        for line in self.lines:
            if line.basis == basis:
                whole.calls += line.calls
                whole.counted += line.counted
                whole.prompt += line.prompt
                whole.completion += line.completion
                whole.absolute += line.absolute
        return whole

    def wrong(self, most: float) -> list[str]:
        """What must not be: any difference in a reported row, any call without its row, an estimate off by more."""
        reported, estimated = self.sum("reported"), self.sum("estimated")
        found = [
            f"{line.cause}: reported rows differ by {line.difference} tokens"
            for line in self.lines
            if line.basis == "reported" and line.absolute
        ]
        found += [
            f"{what}: {', '.join(of[:5])} ({len(of)})"
            for what, of in (
                ("calls without a row", self.missing),
                ("rows without a call", self.surplus),
                ("reported, but the provider did not tell", self.untold),
            )
            if of
        ]
        if not reported.calls or not estimated.calls:
            found.append("there were not both reported and estimated calls")
        if abs(estimated.share) > most:
            found.append(f"estimated rows differ by {estimated.share:+.2%}")
        return found


def reconcile(asked: Sequence[Asked], calls: Iterable[Row], rows: Iterable[Row]) -> Reconciliation:
    """Lay the provider's calls (`GET /calls` of the mock provider) beside the ledger's rows, turn by turn.

    A call that the provider refused counts for nothing. The calls of a turn stand in the same order on both sides.
    """
    by_message: dict[str, list[Row]] = defaultdict(list)
    for call in calls:
        if call["prompt"]:
            by_message[call["user"]].append(call)
    by_turn: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_turn[row["turn_id"]].append(row)
    lines: dict[tuple[str, str], Line] = {}
    found = Reconciliation([], len(asked))
    for one in asked:
        counted = by_message[one.message]
        entered = sorted(by_turn.get(one.turn_id or "", ()), key=lambda row: (row["attempt"], row["call"]))
        found.missing += [f"{one.cause} ({one.turn_id})"] * max(len(counted) - len(entered), 0)
        found.surplus += [f"{one.cause} ({one.turn_id})"] * max(len(entered) - len(counted), 0)
        for call, row in zip(counted, entered, strict=False):
            if row["basis"] == "reported" and not call["told"]:
                found.untold.append(f"{one.cause} ({one.turn_id})")
            line = lines.setdefault((one.cause, row["basis"]), Line(one.cause, row["basis"]))
            _add(line, call, row)
    found.lines = [lines[key] for key in sorted(lines)]
    return found


def _add(line: Line, call: Row, row: Row) -> None:
    prompt = row["prompt_tokens"] - call["prompt"]
    completion = row["completion_tokens"] - call["completion"]
    line.calls += 1
    line.counted += call["prompt"] + call["completion"]
    line.prompt += prompt
    line.completion += completion
    line.absolute += abs(prompt) + abs(completion)


def costs_by_prices(rows: Iterable[Row], price_in: Decimal, price_out: Decimal) -> Decimal:
    """What the rows must cost where nothing is cached; USD a million tokens."""
    return (
        sum((row["prompt_tokens"] * price_in + row["completion_tokens"] * price_out for row in rows), Decimal())
        / 1_000_000
    )


def table(found: Reconciliation) -> Table:
    """The differences by cause, and in sum."""
    headings = ("cause", "basis", "calls", "provider's tokens", "prompt", "completion", "difference", "|difference|")
    made = Table(*headings, title=f"Ledger minus provider, {found.turns:,} turns", title_justify="left")
    for line in (*found.lines, found.sum("reported"), found.sum("estimated")):
        values = (line.calls, line.counted)
        share = f"{line.share:+.2%}" if line.counted else ""
        signed = (f"{line.prompt:+d}", f"{line.completion:+d}", share)
        made.add_row(line.cause, line.basis, *(f"{value:,}" for value in values), *signed, f"{line.absolute:,}")
    return made


_COUNTER = re.compile(r"^vllm:(prompt|generation)_tokens_total(?:\{([^}]*)\})?\s+(\S+)", re.MULTILINE)


def vllm_counters(exposition: str, model: str | None = None) -> tuple[int, int]:
    """Prompt and answer tokens that vLLM has counted, from its Prometheus text; of one served model or of all."""
    sums = {"prompt": 0.0, "generation": 0.0}
    for kind, labels, value in _COUNTER.findall(exposition):
        if model is None or f'model_name="{model}"' in labels:
            sums[kind] += float(value)
    return round(sums["prompt"]), round(sums["generation"])


def against_counters(before: tuple[int, int], after: tuple[int, int], rows: Iterable[Row]) -> tuple[int, int]:
    """Ledger minus vLLM, prompt and answer tokens, of all rows of the time between two readings of the counters."""
    listed = list(rows)
    prompt = sum(row["prompt_tokens"] for row in listed) - (after[0] - before[0])
    completion = sum(row["completion_tokens"] for row in listed) - (after[1] - before[1])
    return prompt, completion
