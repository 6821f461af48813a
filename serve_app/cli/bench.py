"""`brain bench`: the benchmarks, in a process of their own."""

import subprocess
import sys

import typer


def bench(context: typer.Context) -> None:
    """Run the benchmarks; arguments are passed on (`brain bench --help` of the benchmarks: `brain bench -- --help`)."""
    finished = subprocess.run([sys.executable, "-m", "benchmarks", *context.args], check=False)  # noqa: S603
    raise typer.Exit(finished.returncode)
