"""Defects planted into the whole service: a copy of the source with a few words changed, run and judged like the real.

`brain verify --planted` shows that campaigns find them. The protocol's own
defects are planted in `planted.py`, where every order of two hosts is tried.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults import campaign
from tests.faults.checker import check
from tests.faults.faults import FAULTS
from tests.faults.violations import Violation
from tests.source_copy import copy_source, edit

SECONDS, CLIENTS, SEED = 20.0, 16, 1


@dataclass(frozen=True, slots=True)
class Defect:
    """`edits`: in each file, what is replaced by what. `faults`: a pattern of the names of those it needs to show."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    faults: str = "$^"


FUNCTIONS = "storage/migrations/sql/0002_functions.sql"
DEFECTS = (
    Defect(
        "a message is acknowledged before it is durable",
        (("serve_app/embedded/postgres.py", '"synchronous_commit": "on"', '"synchronous_commit": "off"'),),
        "PostgreSQL crashes",
    ),
    Defect(
        "a key is forgotten at once",
        (
            (
                FUNCTIONS,
                "(p_tenant, p_caller, p_key, p_hash, p_turn)",
                "(p_tenant, p_caller, p_key||p_turn, p_hash, p_turn)",
            ),
        ),
    ),
    Defect(
        "a message takes two numbers",
        (
            (
                FUNCTIONS,
                "c.next_seq + CASE WHEN p_regenerates IS NULL THEN 1",
                "c.next_seq + CASE WHEN p_regenerates IS NULL THEN 2",
            ),
        ),
    ),
    Defect(
        "a resumed stream says its last event again",
        (("serve_app/ingress/replay.py", "if event.n > position.n]", "if event.n >= position.n]"),),
    ),
    Defect(
        "a resumed stream leaves an event out",
        (("serve_app/ingress/replay.py", "if event.n > position.n]", "if event.n > position.n + 1]"),),
    ),
    Defect(
        "an attempt can open twice",
        (("storage/lua/append.lua", "if n == 0 or (kind ~=", "if true or (kind ~="),),
        "Redis' answers are lost",
    ),
    Defect(
        "a delta whose write was not answered is left out of what is stored",
        (
            (
                "deployments/recording.py",
                "self.unanswered = None if self._answered else entry",
                "self.unanswered = None",
            ),
        ),
        "Redis' answers are lost",
    ),
    Defect(
        "the stored reply is not quite what was streamed",
        (("actors/run.py", "text=outcome.text", "text=outcome.text[:-1]"),),
    ),
    Defect(
        "the second page leaves its first message out",
        (("storage/reader.py", 'AND m.seq {compare} $4"', 'AND m.seq {compare} $4 + 1"'),),
    ),
)


@contextmanager
def planted(defect: Defect) -> Iterator[Path]:
    """A folder with the changed source. Raises ValueError where what is to be replaced does not stand exactly once."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        tree = Path(name)
        tree.chmod(0o755)
        copy_source(tree, "tests")
        for path, right, wrong in defect.edits:
            edit(tree / path, right, wrong)
        yield tree


@dataclass(frozen=True, slots=True)
class Verdict:
    """`seconds`: from the start of the service to the verdict."""

    defect: Defect
    violations: list[Violation]
    seconds: float


def find(defect: Defect, told: Callable[[str], None] = lambda said: None) -> Verdict:
    """A short campaign on the changed service."""
    began = time.monotonic()
    faults = tuple(fault for fault in FAULTS if re.search(defect.faults, fault.name))
    with planted(defect) as tree:
        result = campaign.run(SECONDS, SEED, CLIENTS, faults, told, tree)
    return Verdict(defect, check(result.history), time.monotonic() - began)
