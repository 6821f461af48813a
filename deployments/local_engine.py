"""What this service changes in vLLM's own processes: a plugin, which vLLM loads in each of them.

https://docs.vllm.ai/en/latest/design/plugin_system.html
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

WAITS = "BRAIN_VLLM_WAITS"
BIND = "VLLM_CPU_OMP_THREADS_BIND"
NICE = 5
FEW = 4  # cores
SPIN, PAUSE, APART = 2e-4, 2e-4, 5e-4  # seconds


def wait_politely() -> None:
    """Where `WAITS` is 1: the engine and its workers soon sleep between two looks at their shared memory.

    They wait for each other's messages in a loop around `sched_yield`, for a second after the last one. That is right
    where each has a core to itself. On a machine's only cores it starves whoever is not in their scheduling group:
    under Linux's autogroups that is PostgreSQL, Redis and every client, whose wake-ups then took 3 to 30 ms.

    They give way, too: a turn passes through a dozen short waits for a processor before its first token and after its
    last one, and none of them should outlast a step of the engine.
    """
    if os.environ.get(WAITS) != "1":
        return
    if multiprocessing.parent_process() is not None:  # the engine and its workers, not the replica that they serve
        give_way()
    from vllm.distributed.device_communicators import shm_broadcast

    if hasattr(shm_broadcast, "sched_yield"):
        shm_broadcast.sched_yield = soon_asleep()
    else:
        log.warning("this version of vLLM waits in another way: its processes may starve others")


def give_way() -> None:
    """Be scheduled as a batch job is, which interrupts nobody, and a little less than others.

    With few cores, on all but one, the engine and its workers together: they take turns, so a core that one of them
    leaves is there for the other, and everybody else has one where none of them runs. vLLM would bind the workers
    alone; then the engine waits for everybody else on the core that is left, and the workers for the engine.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if not hasattr(os, "sched_setaffinity") or BIND in os.environ:
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= FEW:
        os.environ[BIND] = "nobind"
        os.environ.setdefault("OMP_NUM_THREADS", str(max(len(cores) - 1, 1)))
        os.sched_setaffinity(0, cores[:-1] or cores)


def soon_asleep() -> Callable[[], None]:
    """What a waiting loop calls each time round: it yields for `SPIN` seconds, then sleeps for `PAUSE` each time.

    After `APART` without a call the loop did something else meanwhile, and this is another wait.
    """
    left = began = float("-inf")

    def wait() -> None:
        nonlocal left, began
        now = time.monotonic()
        if now - left > APART:
            began = now
        if now - began < SPIN:
            os.sched_yield()
        else:
            time.sleep(PAUSE)
        left = time.monotonic()

    return wait
