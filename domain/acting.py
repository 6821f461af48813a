"""For which tenant the task at hand works: what it logs says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""Tasks that a task starts work for its tenant, too."""


@contextmanager
def acting_for(tenant: str) -> Iterator[None]:
    token = TENANT.set(tenant)
    try:
        yield
    finally:
        TENANT.reset(token)
