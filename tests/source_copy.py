"""Copies of the source, for tests that change it."""

import shutil
from pathlib import Path

from tests.e2e.brain import ROOT

PACKAGES = ("actors", "adapters", "benchmarks", "configs", "deployments", "domain", "serve_app", "storage")


def copy_source(tree: Path, *more: str) -> None:
    """The service's packages, and `more` of them."""
    for package in (*PACKAGES, *more):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))


def edit(path: Path, right: str, changed: str) -> None:
    """Raises ValueError where what is to be replaced does not stand exactly once."""
    text = path.read_text()
    if text.count(right) != 1:
        raise ValueError(f"{path} has {right!r} {text.count(right)} times")
    path.write_text(text.replace(right, changed))
