"""Start the systems under test as children of this process, measure their memory, and end all of them.

Databases and Ray put themselves into the background; this process adopts such orphans (Linux), so that "everything
below a process" stays complete and nothing is left behind.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36


class StartFailed(RuntimeError):
    """A system under test did not become ready; the message ends with its last output."""


def adopt_orphans() -> None:
    """Become the parent of background processes whose own parent ends. Only Linux can do it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def below(pid: int | None = None) -> list[psutil.Process]:
    """All living processes below `pid` (this process by default)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid).children(recursive=True)
        return [process for process in found if _alive(process)]
    return []


@contextlib.contextmanager
def asleep(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """These and all below them are stopped (SIGSTOP) while the block runs."""
    stopped = {one for process in processes for one in (process, *below(process.pid))}
    try:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def end(processes: Iterable[psutil.Process], patience: float = 3) -> None:
    """SIGTERM, then after `patience` seconds SIGKILL."""
    left = list(processes)
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                ask(process)
        left = psutil.wait_procs(left, timeout=patience)[1]


def end_all() -> None:
    """End whatever is still below this process, also what was adopted, and take note of their ends."""
    end(below())
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def started(
    command: list[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    start_s: float = 180,
    stop_s: float = 20,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; enter the block when `ready` says so. Its descendants end with it."""
    before = set(below())
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=cwd
        )
    try:
        wait_for(process, ready, log, start_s)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(stop_s)
        end([child for child in below() if child not in before])


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, seconds: float) -> None:
    """Poll `ready` ten times a second; raise StartFailed when the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while not ready():
        over = time.monotonic() > deadline
        if over or process.poll() is not None:
            why = f"not ready after {seconds:.0f} s" if over else f"ended with code {process.returncode}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise StartFailed(f"{process.args!r}: {why}\n{tail}")
        time.sleep(0.1)


class MemoryWatch:
    """Peak memory of all processes that were started after `before`, sampled once a second in a thread.

    RSS counts a shared page once a process (Postgres and Ray share much); PSS shares it out and is the fair sum, but
    reading it costs milliseconds a process, so it is read once, when the block ends.
    """

    def __init__(self, before: set[psutil.Process]) -> None:
        self._before, self._stop = before, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_rss = 0
        self.pss: int | None = None

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_rss = max(self.peak_rss, rss(self._processes()))
        self.pss = pss(self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [process for process in below() if process not in self._before]

    def _sample(self) -> None:
        while not self._stop.wait(1):
            self.peak_rss = max(self.peak_rss, rss(self._processes()))


def rss(processes: Iterable[psutil.Process]) -> int:
    """Sum of resident memory, bytes."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def pss(processes: Iterable[psutil.Process]) -> int | None:
    """Sum of proportional memory, bytes; None where the system does not tell it."""
    total = 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            if sys.platform != "linux":
                return None
            continue
        except OSError:
            return None
        total += next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
