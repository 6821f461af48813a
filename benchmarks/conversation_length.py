"""`python -m benchmarks conversation-length`: what a turn costs in a short, a long and a very long conversation.

Hot: the conversation's host has it in memory. Cold: the first turn since it was filled. Restarted: the first turn
after the whole service was stopped and started again.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import expected_text, run
from benchmarks.fill import fill, new_conversations
from benchmarks.load import LoadGenerator, Reply
from benchmarks.measurements import percentile
from benchmarks.systems import brain, mock
from benchmarks.systems.brain import Brain
from benchmarks.workloads import Workload

LOAD = Workload(clients=1, streamed=True)
Case = tuple[int, str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=[10, 1000, 10_000])
    parser.add_argument("--turns", type=int, default=20, help="turns a case (20)")
    parser.set_defaults(run=measure_lengths)


def measure_lengths(chosen: argparse.Namespace, console: Console) -> None:
    """Measure all lengths and print one table."""
    cases: dict[Case, list[Reply]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with mock.start(folder) as provider:
            with console.status("starting the service"), brain.start(provider, folder) as service:
                told = run(_first_life(service, chosen.lengths, chosen.turns, cases))
            with console.status("starting it again"), brain.start(provider, folder) as service:
                run(_second_life(service, told, cases))
    console.print(_table(cases))
    for (length, state), replies in cases.items():
        if wrong := next((reply.wrong for reply in replies if reply.wrong), None):
            console.print(f"{length:,} messages, {state}: {wrong}", markup=False, style="red")


async def _first_life(
    service: Brain, lengths: Sequence[int], turns: int, cases: dict[Case, list[Reply]]
) -> dict[int, list[str]]:
    made = {length: new_conversations(turns) for length in lengths}
    database = await asyncpg.connect(service.admin_url)
    try:
        for length, conversations in made.items():
            await fill(database, service.tenant_id, conversations, length)
        await fill(database, service.tenant_id, warm_up := new_conversations(10), 10)
    finally:
        await database.close()
    async with aiohttp.ClientSession() as session:
        await _turns(service, session, warm_up)
        for length, conversations in made.items():
            cases[length, "cold"] = await _turns(service, session, conversations)
            cases[length, "hot"] = await _turns(service, session, conversations)
    return made | {0: warm_up}


async def _second_life(service: Brain, told: dict[int, list[str]], cases: dict[Case, list[Reply]]) -> None:
    async with aiohttp.ClientSession() as session:
        await _turns(service, session, told.pop(0))
        for length, conversations in told.items():
            cases[length, "restarted"] = await _turns(service, session, conversations)


async def _turns(service: Brain, session: aiohttp.ClientSession, conversations: Sequence[str]) -> list[Reply]:
    """One turn in each, one after another."""
    client = LoadGenerator(service.chat(kept=True), LOAD, expected_text)
    return [await client.turn(session, conversation) for conversation in conversations]


def _table(cases: dict[Case, list[Reply]]) -> Table:
    headings = ("messages", "conversation", "first token p50 ms", "max", "whole reply p50 ms", "max", "wrong")
    table = Table(*headings, title="A turn of 64 tokens, one client, streamed", title_justify="left")
    for (length, state), replies in sorted(cases.items()):
        first = [(reply.first - reply.started) * 1000 for reply in replies if reply.first]
        whole = [(reply.ended - reply.started) * 1000 for reply in replies if not reply.wrong]
        figures = (percentile(first, 50), max(first, default=0), percentile(whole, 50), max(whole, default=0))
        wrong = sum(bool(reply.wrong) for reply in replies)
        table.add_row(f"{length:,}", state, *(f"{figure:.1f}" for figure in figures), str(wrong))
    return table
