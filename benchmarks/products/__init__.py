"""`python -m benchmarks products`: questions answered right without a model, and what products cost a turn.

No service is started: turns run through a host in this process, over PostgreSQL and Redis of its own.
"""

import argparse
import asyncio
import os
import random
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.products.questions import QUESTIONS, UNSEEN, Question
from benchmarks.products.shop import TAU2, asked_of, made_up, tau2
from benchmarks.products.turns import MODEL, World, ask, world
from domain.model import SCRIPTED

RIGHT = 0.95  # of the questions, at the least
ADDED = 15.0  # milliseconds that products may add to a turn, in the median
WARM_UP, TALK = 20, 20  # turns that are not measured, and turns of a conversation
PLAIN = ("Hello there", "Thank you very much", "Goodbye", "How do I return an item?", "Where is my order?")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--products", type=int, default=10_000, help="of the made-up catalogue (10000)")
    parser.add_argument("--turns", type=int, default=300, help="measured pairs of turns (300)")
    parser.add_argument("--cost-alone", action="store_true", help="leave the questions out")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=measure)


def measure(chosen: argparse.Namespace, console: Console) -> None:
    """Print both figures beside their bars."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asyncio.run(_measure(chosen, console))


async def _measure(chosen: argparse.Namespace, console: Console) -> None:
    async with world() as parts:
        if chosen.cost_alone:
            pass
        elif TAU2.exists():
            for questions, bar in ((QUESTIONS, f"at least {RIGHT:.0%}"), (UNSEEN, "written afterwards")):
                wrong = await answered(parts, questions)
                right = len(questions) - len(wrong)
                console.print(f"answered right: {right} of {len(questions)} ({bar})")
                for line in wrong:
                    console.print(line, markup=False, highlight=False)
        else:
            console.print(f"{TAU2} is missing: BRAIN_EVAL_DATA names its folder", markup=False)
        await _cost(parts, chosen, console)


async def answered(parts: World, questions: Sequence[Question]) -> list[str]:
    """The questions that the built-in model answers wrongly, and what is wrong."""
    tenant, host = await parts.tenant(tau2()), parts.host()
    wrong = []
    for question in questions:
        key, answer = await parts.conversation(tenant), ""
        for text in (*question.earlier, question.text):
            answer, _ = await ask(host, key, text, SCRIPTED)
        if problems := question.problems(answer):
            wrong.append(f"{question.text}: {', '.join(problems)}\n    {answer}")
    await host.stop()
    return wrong


async def _cost(parts: World, chosen: argparse.Namespace, console: Console) -> None:
    """Pairs of turns with the same message, one by a host that has the catalogue; in random order.

    CPU time is that of this process and of PostgreSQL: it says what turns cost where others keep the machine busy.
    """
    products = made_up(chosen.products, chosen.seed)
    tenant = await parts.tenant(products)
    hosts = {"without a catalogue": parts.host(products=False), "with it": parts.host()}
    source = random.Random(chosen.seed)
    asked = {"products": asked_of(products, chosen.turns), "plain": [source.choice(PLAIN) for _ in range(chosen.turns)]}
    table = Table("turns", *hosts, "added, p50", "CPU each", "added CPU", title=f"{chosen.products:,} products, ms")
    medians = {}
    for kind, texts in asked.items():
        wall: dict[str, list[float]] = {name: [] for name in hosts}
        cpu, backends = dict.fromkeys(hosts, 0.0), parts.backends()
        keys = {name: await parts.conversation(tenant) for name in hosts}
        for number, text in enumerate([*texts[:WARM_UP], *texts]):
            if number % TALK == 0:
                keys = {name: await parts.conversation(tenant) for name in hosts}
                for name, host in hosts.items():
                    await ask(host, keys[name], "hello", MODEL)
                backends = parts.backends()
            order = list(hosts)
            source.shuffle(order)
            for name in order:
                began = parts.cpu_seconds(backends)
                _, taken = await ask(hosts[name], keys[name], text, MODEL)
                if number >= WARM_UP:
                    wall[name].append(taken)
                    cpu[name] += (parts.cpu_seconds(backends) - began) * 1000 / len(texts)
        without, those = wall.values()
        medians[kind] = statistics.median(those) - statistics.median(without)
        spent, more = cpu.values()
        cells = [f"{statistics.median(of):.1f}" for of in (without, those)]
        table.add_row(kind, *cells, f"{medians[kind]:.1f}", f"{spent:.1f}", f"{more - spent:.1f}")
    console.print(table)
    console.print(f"added to a product turn: {medians['products']:.1f} ms (at most {ADDED:.0f})")
    for host in hosts.values():
        await host.stop()
