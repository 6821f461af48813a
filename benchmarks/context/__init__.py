"""`python -m benchmarks context`: how much of a prompt the next one repeats, and what is still told 100 turns later.

No service is started: prompts are built as a conversation's owner builds them, of made-up conversations.
"""

import argparse
import random
import statistics
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.context.builders import Builder, Messages, halved, identical, ours, sliding, tokens_of
from benchmarks.context.talk import talk
from benchmarks.context.told_facts import FACTS

ANSWER = 1024  # tokens of a window that are kept for the answer
BUILDERS: dict[str, Builder] = {"sliding window": sliding, "half at once, no summary": halved, "this service": ours}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--windows", type=_numbers, default=[4096, 8192, 16384], help="tokens of a model")
    parser.add_argument("--replies", type=_numbers, default=[40, 80, 150], help="tokens of a reply, in the median")
    parser.set_defaults(run=measure)


def measure(chosen: argparse.Namespace, console: Console) -> None:
    """Print both tables."""
    seeds = range(chosen.seeds)
    table = Table(
        *("window", "reply", "turn", *BUILDERS, "of all tokens"),
        title=f"Tokens identical with the previous turn's prompt, {chosen.turns} turns, mean (worst seed) %",
        title_justify="left",
    )
    cases = [(window, reply) for window in chosen.windows for reply in chosen.replies]
    for window, reply in track(cases, "prefixes", console=console, transient=True):
        table.add_row(f"{window:,}", str(reply), *_identical(seeds, chosen.turns, window - ANSWER, reply))
    console.print(table)
    table = Table(
        "window",
        *BUILDERS,
        title=f"Facts told 100 turns ago that the prompt still holds, of {len(FACTS)}, mean (worst seed)",
        title_justify="left",
    )
    missed: dict[str, int] = {}
    for window in track(chosen.windows, "facts", console=console, transient=True):
        table.add_row(f"{window:,}", *(_held(builder, seeds, window - ANSWER, missed) for builder in BUILDERS.values()))
    console.print(table)
    told = ", ".join(f"{needle!r} {times}×" for needle, times in sorted(missed.items(), key=lambda one: -one[1]))
    console.print(f"missed by this service: {told or 'none'}", markup=False, highlight=False)


def _identical(seeds: Sequence[int], turns: int, budget: int, reply: int) -> list[str]:
    """The tokens of a turn, the shares of each builder, and this service's share of all tokens together."""
    talks = [list(talk(seed, turns, reply)) for seed in seeds]
    cells = [f"{statistics.mean(_turn_tokens(one) for one in talks):.0f}"]
    for builder in BUILDERS.values():
        shares: list[float] = []
        same = whole = 0.0
        for said in talks:
            found = [(identical(before, now), tokens_of(now)) for before, now in pairwise(builder(said, budget))]
            shares.append(statistics.mean(share for share, _ in found))
            same += sum(share * tokens for share, tokens in found)
            whole += sum(tokens for _, tokens in found)
        cells.append(f"{100 * statistics.mean(shares):.1f} ({100 * min(shares):.1f})")
    return [*cells, f"{100 * same / whole:.1f}"]


def _turn_tokens(said: Sequence[tuple[str, str]]) -> float:
    return statistics.mean(tokens_of([{"content": text} for text in turn]) for turn in said)


def _held(builder: Builder, seeds: Sequence[int], budget: int, missed: dict[str, int]) -> str:
    held = []
    for seed in seeds:
        kept = 0
        for number, (told, needle) in enumerate(FACTS):
            prompt = _prompt_after(builder, seed * 1000 + number, told, budget)
            text = "\n".join(message["content"] for message in prompt).casefold()
            found = any(words.casefold() in text for words in needle.split("|"))
            kept += found
            if builder is ours and not found:
                missed[needle] = missed.get(needle, 0) + 1
        held.append(kept)
    return f"{statistics.mean(held):.1f} ({min(held)})"


def _prompt_after(builder: Builder, seed: int, told: str, budget: int) -> Messages:
    """The prompt of the turn 100 turns after the one in which `told` was said, somewhere in the first thirty."""
    at = random.Random(seed).randrange(30)
    said = list(talk(seed, at + 101, 80))
    said[at] = (told, said[at][1])
    *_, last = builder(said, budget)
    return last


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]
