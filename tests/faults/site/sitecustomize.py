"""Read by each Python process of a service under test as it starts: a signal holds all its Python for a while.

Unlike in a process that stands still, threads that are not Python's go on: Ray's heartbeats are answered by a process
whose event loop is blocked.
"""

import ctypes
import os
import signal
import threading

BLOCK = signal.SIGRTMIN + 7


def _wait() -> None:
    sleep = ctypes.PyDLL(None).usleep  # called with the interpreter's lock held
    while True:
        signal.sigwait({BLOCK})
        with open(os.environ["FAULTS_BLOCK"]) as file:
            seconds = float(file.read())
        sleep(int(seconds * 1e6))


if "FAULTS_BLOCK" in os.environ:
    signal.pthread_sigmask(signal.SIG_BLOCK, {BLOCK})  # in the threads to come too
    threading.Thread(target=_wait, name="faults", daemon=True).start()
