"""Whether a history is explained by a sequential conversation (DESIGN: the promise; API: the streams)."""

from collections.abc import Callable, Iterator

from tests.faults.facts import Facts, facts_of
from tests.faults.history import History
from tests.faults.judge_deletions import judge_deletions
from tests.faults.judge_keys import judge_keys
from tests.faults.judge_order import judge_order
from tests.faults.judge_sent import judge_sent
from tests.faults.judge_stored import judge_stored
from tests.faults.judge_streams import judge_streams
from tests.faults.judge_texts import judge_texts
from tests.faults.judge_turns import judge_turns
from tests.faults.violations import Violation

JUDGES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    judge_keys,
    judge_stored,
    judge_sent,
    judge_order,
    judge_turns,
    judge_streams,
    judge_texts,
    judge_deletions,
)


def check(history: History) -> list[Violation]:
    """What contradicts a sequential conversation, at most n log n in the size of the history; nothing: it is clean.

    A history with a violation is wrong. A clean one is only as good as what its clients looked at: a conversation of
    which the history does not hold what is stored is judged by the answers alone.
    """
    facts = facts_of(history)
    return [violation for judge in JUDGES for violation in judge(facts)]
