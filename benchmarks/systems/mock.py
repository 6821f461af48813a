"""The mock provider: a process of its own, which also counts what reaches it."""

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.process_tree import started
from benchmarks.systems import Provider, free_port, listening

KEY = "bench-provider-key"


@contextlib.contextmanager
def start(folder: Path) -> Iterator[Provider]:
    """Run it while the block runs."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.mock_provider", "--port", str(port), "--key", KEY]
    with started(command, log=folder / "mock.log", ready=lambda: listening(port), start_s=30):
        yield Provider(f"http://127.0.0.1:{port}/v1", KEY)


def reset(provider: Provider) -> None:
    """Forget all counts."""
    urllib.request.urlopen(f"{provider.root}/reset", data=b"", timeout=10).close()  # noqa: S310


def stats(provider: Provider) -> dict[str, Any]:
    """`{calls, by_user, open_streams, closed_early}`."""
    with urllib.request.urlopen(f"{provider.root}/stats", timeout=10) as answer:  # noqa: S310
        return dict(json.load(answer))
