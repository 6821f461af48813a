"""The mock provider at an address that every node reaches."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_until
from tests.e2e.brain import ROOT


@contextmanager
def provider(base: Path, address: str) -> Iterator[str]:
    """Its URL."""
    ready = base / "mock.ready"
    ready.unlink(missing_ok=True)
    options = ["--host", address, "--port", "9900", "--ready-file", str(ready), "--key", "k"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.mock_provider", *options], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(ready.exists, what="the mock provider")
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.terminate()
        process.wait()
