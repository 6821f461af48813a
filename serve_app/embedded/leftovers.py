"""Processes of this data folder that an earlier `brain up` left behind when it was killed.

Every child's environment carries the folder's mark, and so do its descendants' unless they overwrite it; those are
found through their session or their parents.
"""

import contextlib
import os
import signal
from collections.abc import Iterable

import psutil

from serve_app.embedded.child import INSTANCE, PART

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError)
FAST_SHUTDOWN = {"postgres": (signal.SIGINT, signal.SIGQUIT)}  # others lose nothing by being killed


def find(instance: str, part: str | None = None) -> list[psutil.Process]:
    """Living processes of this instance (of one part of it), not those of this session."""
    found: dict[int, psutil.Process] = {}
    everyone = list(psutil.process_iter())
    for process in everyone:
        with contextlib.suppress(*_GONE):
            marks = process.environ()
            if marks.get(INSTANCE) == instance and part in (None, marks.get(PART)):
                found[process.pid] = process
    sessions = {_session(pid) for pid in found} - {os.getsid(0), None}
    for process in everyone:
        if _session(process.pid) in sessions:
            found[process.pid] = process
    for process in list(found.values()):
        with contextlib.suppress(*_GONE):
            found.update({child.pid: child for child in process.children(recursive=True)})
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _lives(process)]


def end(instance: str, part: str | None = None, grace: float = 8.0) -> int:
    """End them all and say how many there were. PostgreSQL is asked first, for up to `grace` seconds a signal."""
    count = len(find(instance, part))
    for name, signals in FAST_SHUTDOWN.items():
        if part not in (None, name):
            continue
        for number in signals:
            leaders = _leaders(find(instance, name))
            _send(leaders, number)
            psutil.wait_procs(leaders, timeout=grace)
    for _ in range(3):  # one that was just being started may appear after the first look
        rest = find(instance, part)
        if not rest:
            break
        _send(rest, signal.SIGKILL)
        psutil.wait_procs(rest, timeout=5)
    return count


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(*_GONE):
            process.send_signal(number)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _leaders(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those whose parent is not among them: to a server's own children the same signal means something else."""
    pids = {process.pid for process in processes}
    leaders = []
    for process in processes:
        with contextlib.suppress(*_GONE):
            if process.ppid() not in pids:
                leaders.append(process)
    return leaders


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(*_GONE):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
