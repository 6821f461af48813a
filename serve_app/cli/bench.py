"""`brain bench` and `brain verify`: the benchmarks, and campaigns of faults, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import typer


def bench(context: typer.Context) -> None:
    """Run the benchmarks; arguments are passed on (`brain bench --help` of the benchmarks: `brain bench -- --help`)."""
    _run("benchmarks", context)


def verify(context: typer.Context) -> None:
    """Inject faults into a service under load, and judge what its clients saw; arguments are passed on
    (`brain verify -- --help`). It needs the source folder, with its tests."""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "faults").is_dir():
        typer.echo("brain verify runs in the source folder: clone the repository, and `make setup` there", err=True)
        raise typer.Exit(2)
    _run("tests.faults", context, {**os.environ, "PYTHONPATH": str(root)})


def _run(module: str, context: typer.Context, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", module, *context.args]
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)  # noqa: S603
