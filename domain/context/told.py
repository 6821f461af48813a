"""The summary and the facts as a prompt tells them: one text at the beginning of its first message after the system."""

from dataclasses import dataclass

from domain.context.elements import FACTS, SUMMARY
from domain.context.facts import line
from domain.context.fence import NOTE, fenced
from domain.context.summary import Summary
from domain.context.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Told:
    """`tokens` of each part, 0 where it is not told. `left_out`: tokens of what did not fit its share, by kind."""

    text: str = ""
    summary: int = 0
    facts: int = 0
    note: int = 0
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def tokens(self) -> int:
        return self.summary + self.facts + self.note


NOTHING = Told()


def summary_limit(budget: int) -> int:
    """Tokens of a summary for prompts of `budget` tokens: its share, less what the marks of its lines take."""
    return int(0.8 * SUMMARY.share * budget)


def tell(
    summary: Summary | None, start: int, budget: int, counter: TokenCounter, without: frozenset[str] = frozenset()
) -> Told:
    """What stands for the history before the turn `start` in a prompt of `budget` tokens, save the kinds `without`.

    The first lines of a summary that is too long go first, and the oldest facts: it depends on the arguments alone.
    """
    if summary is None or not (summary.sections or summary.facts):
        return NOTHING
    left_out: list[tuple[str, int]] = []
    parts: dict[str, tuple[str, int]] = {}
    for kind, lines, share in (
        (SUMMARY.kind, [one for one in summary.text(start).splitlines() if one], SUMMARY.share),
        (FACTS.kind, [line(fact) for fact in summary.facts_before(start)], FACTS.share),
    ):
        whole = _sized(kind, lines, counter)
        if kind in without:
            lines = []
        elif whole[1] > budget * share:
            lines = _last(lines, int(budget * share) - _frame(kind, counter), counter)
        if lines:
            parts[kind] = whole if whole[1] <= budget * share else _sized(kind, lines, counter)
        if whole[1] > (size := parts[kind][1] if kind in parts else 0):
            left_out.append((kind, whole[1] - size))
    if not parts:
        return Told(left_out=tuple(left_out))
    text = NOTE + "\n".join(part for part, _ in parts.values()) + "\n\n"
    summary_tokens, facts_tokens = (parts[kind][1] if kind in parts else 0 for kind in (SUMMARY.kind, FACTS.kind))
    return Told(text, summary_tokens, facts_tokens, counter.count(NOTE) + 1, tuple(left_out))


def _sized(kind: str, lines: list[str], counter: TokenCounter) -> tuple[str, int]:
    text = fenced(kind, "\n".join(lines)) if lines else ""
    return text, counter.count(text) + 1 if text else 0


def _frame(kind: str, counter: TokenCounter) -> int:
    return counter.count(fenced(kind, "")) + 1


def _last(lines: list[str], room: int, counter: TokenCounter) -> list[str]:
    """The last lines whose tokens, each with its mark, fit into `room`."""
    kept: list[str] = []
    for one in reversed(lines):
        room -= counter.count(f"| {one}\n") + 1
        if room < 0:
            break
        kept.append(one)
    return kept[::-1]
