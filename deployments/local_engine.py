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

    With few cores, on any of them: vLLM would bind the model's threads to all but one, and there they wait for whoever
    else runs on these.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores <= FEW and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ.setdefault("OMP_NUM_THREADS", str(max(cores - 1, 1)))


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
