"""`python -m benchmarks reconcile`: the ledger beside the provider's own count, after turns that fail in many ways."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress

from benchmarks.faulty_turns import PRICE_IN, PRICE_OUT, FaultyTurns, config, ledger_of, texts_of, write_tokenizer
from benchmarks.process_tree import started
from benchmarks.reconciliation import Reconciliation, costs_by_prices, reconcile, table
from benchmarks.systems import Provider, free_port, mock
from benchmarks.systems.brain import Brain

MOST = 0.02  # of the tokens of estimated calls
SETTLED = 30.0  # seconds that the ledger may take after the last answer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--turns", type=int, default=2000, help="turns and completions (2000)")
    parser.add_argument("--clients", type=int, default=24, help="at a time (24)")
    parser.add_argument("--seed", type=int, default=7, help="of the load (7)")
    parser.add_argument("--no-tokenizer", action="store_true", help="let the service learn how the provider counts")
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> None:
    """Start everything, put the load on it, compare; exit 1 where the ledger is wrong."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with mock.start(folder) as provider, _service(provider, folder, not chosen.no_tokenizer) as service:
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task("turns", total=chosen.turns)
                load = FaultyTurns(service.url, service.key, chosen.clients, chosen.seed)
                asyncio.run(load.run(chosen.turns, lambda: progress.advance(task)))
            found, rows = asyncio.run(settled(load, provider.root, service.admin_url))
            texts = asyncio.run(texts_of(service.admin_url, load.asked))
    console.print(table(found))
    wrong = found.wrong(MOST)
    wrong += [f"{len(odd)} turns ended otherwise: {', '.join(odd[:5])}" for odd in [load.unexpected()] if odd]
    expected = costs_by_prices(rows, Decimal(str(PRICE_IN)), Decimal(str(PRICE_OUT)))
    cost = sum((row["cost_usd"] for row in rows), Decimal())
    if cost != expected:
        wrong.append(f"the ledger's cost is {cost}, by its tokens it is {expected}")
    short = [
        row for row in rows if row["reply"] and row["completion_tokens"] < len(texts.get(row["turn_id"], "").split())
    ]
    console.print(f"cost ${cost}; estimates below the text that was received: {len(short)}")
    if chosen.json:
        chosen.json.write_text(json.dumps(_figures(found), indent=1))
    for line in wrong:
        console.print(line, style="red", markup=False)
    if wrong:
        raise SystemExit(1)


async def settled(load: FaultyTurns, provider_root: str, database_url: str) -> tuple[Reconciliation, list[Any]]:
    """The comparison once all calls are in the ledger, or when they take too long."""
    deadline = time.monotonic() + SETTLED
    while True:
        calls = await asyncio.to_thread(calls_of, provider_root)
        rows = await ledger_of(database_url, load.asked)
        found = reconcile(load.asked, calls, rows)
        if not found.missing or time.monotonic() > deadline:
            return found, rows
        await asyncio.sleep(0.5)


def calls_of(provider_root: str) -> list[dict[str, Any]]:
    """The mock provider's own account."""
    with urllib.request.urlopen(f"{provider_root}/calls", timeout=30) as answer:  # noqa: S310
        return list(json.load(answer))


@contextlib.contextmanager
def _service(provider: Provider, folder: Path, tokenizer: bool) -> Iterator[Brain]:
    path, ready = folder / "providers.yaml", folder / "brain.ready"
    made = config(provider.url, "${FAULTY_KEY}", write_tokenizer(folder / "tokenizer.json") if tokenizer else None)
    path.write_text(yaml.safe_dump(made))
    command = [sys.executable, "-m", "serve_app.cli", "up", "--port", str(free_port()), "--data", str(folder / "brain")]
    command += ["--ready-file", str(ready), "--config", str(path)]
    env = {"FAULTY_KEY": provider.key}
    with started(command, log=folder / "brain.log", ready=lambda: ready.exists() and ready.stat().st_size > 0, env=env):
        said = json.loads(ready.read_text())
        yield Brain(said["url"].rstrip("/"), said["api_key"], said["tenant_id"], said["pid"], folder / "brain")


def _figures(found: Reconciliation) -> dict[str, Any]:
    lines = [*found.lines, found.sum("reported"), found.sum("estimated")]
    return {
        "turns": found.turns,
        "lines": [
            {
                "cause": line.cause,
                "basis": line.basis,
                "calls": line.calls,
                "provider_tokens": line.counted,
                "prompt": line.prompt,
                "completion": line.completion,
                "share": round(line.share, 6),
            }
            for line in lines
        ],
        "missing": len(found.missing),
        "surplus": len(found.surplus),
    }
