"""What each replica's process sets up before its work."""

import gc
import resource

from serve_app.clock import Clock
from serve_app.ingress.logs import configure_logging
from serve_app.redaction import KNOWN, secrets_of
from serve_app.settings import Settings

YOUNG, MIDDLE, OLD = 2000, 10, 200
"""Python's default is 700, 10, 10. A full collection stops everything while it looks at all that waits: with two
thousand calls in a queue, for 100 to 200 ms. These make it rare, and keep the others short (15 ms there)."""


_clock = Clock()


def prepare(log_level: str) -> None:
    """Logs as JSON without secrets, pauses that nobody notices, an eye on the clock. Serve freezes what is there after
    the start (`gc.freeze`)."""
    KNOWN.learn(secrets_of(Settings()))
    configure_logging(log_level)
    collect_seldom()
    open_many_files()
    _clock.watch()


def open_many_files() -> None:
    """As many as the machine lets this process: each connection is one."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_process() -> None:
    """Part of each replica's `check_health`. Raises `ClockPutBack`."""
    _clock.check()


def collect_seldom() -> None:
    gc.set_threshold(YOUNG, MIDDLE, OLD)
