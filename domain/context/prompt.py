"""Builds a turn's prompt within a budget of tokens.

Its beginning stays byte for byte the same from turn to turn, so that providers and vLLM reuse their cached prefix: the
system prompt, the summary and the facts, history in the order of turns, and last what changes each turn. History is
dropped from the front in large blocks, and only there the summary and the facts change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.context.elements import BY_KIND, FACTS, HISTORY, SUMMARY, Account
from domain.context.material import Extra, Material, fitted
from domain.context.remembered import Remembered
from domain.context.summary import Summary
from domain.context.tokens import ESTIMATE, MESSAGE_OVERHEAD, TokenCounter
from domain.context.told import NOTHING, Told, summary_limit, tell

KEEP, KEEP_MESSAGES = 0.2, 0.5  # of the budget, and of the most messages: the history that stays when a block goes
AT_ONCE = (64, 65_536)  # messages and characters of a block that is summarised while a turn waits: milliseconds
ROOM = 0.7  # of either: the history that may stay where a summary was prepared for the rest


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages in OpenAI's shape, the first order that is still told, and the account for the trace.

    `told`: what stands for the history before `window_from`. `summary`: the one that it was told from, extended where
    more history had to go than it covered. `bare`: the last message is the turn's own and nothing else, so that the
    next prompt may repeat it.
    """

    messages: list[dict[str, str]]
    window_from: int
    tokens: int
    account: dict[str, Any]
    told: Told = NOTHING
    summary: Summary | None = None
    bare: bool = True
    budget: int = 0
    counter: TokenCounter = field(default=ESTIMATE)


@dataclass(slots=True)
class _Turn:
    """A turn's messages in history."""

    order: int
    messages: list[Remembered]
    tokens: int = 0


def build_prompt(
    system_prompt: str | None,
    history: Sequence[Remembered],
    order: int,
    window_from: int,
    budget: int,
    max_messages: int = 100,
    *,
    summary: Summary | None = None,
    extend: bool = True,
    material: Sequence[Material] = (),
    counter: TokenCounter = ESTIMATE,
) -> Prompt:
    """The prompt of turn `order`: system prompt, summary and facts, history from `window_from` on, and the turn's own
    message last, with `material` before it.

    `history` must hold the messages of turn `order` and of those before it; those of later turns are left out.
    `budget` is in tokens, counted by `counter`; the system prompt and the turn's own message stand even where they are
    longer. Over it, or over `max_messages`, a block of history goes: to where `summary` reaches, if that is enough,
    else so much that at the most a fifth of the tokens and half of the messages stay; the summary is extended then.
    What still has no room goes in order of priority: similar exchanges, products, the summary, the facts. Without
    `extend` the summary stays as it is: it lacks turns before these, and is caught up with elsewhere.
    """
    told = sorted(
        (m for m in history if window_from <= m.order <= order), key=lambda m: (m.order, m.role != "user", m.seq)
    )
    first = next((place for place in range(len(told), 0, -1) if told[place - 1].order < order), 0)
    past, own = told[:first], told[first:]
    system = counter.count(system_prompt) + MESSAGE_OVERHEAD if system_prompt else 0
    fixed = system + _size(own, counter)
    extras = sorted(
        (fitted(one, budget, counter) for one in material if one.texts), key=lambda one: -BY_KIND[one.kind].priority
    )
    memory = tell(summary, window_from, budget, counter)
    length = _size(past, counter)

    def total() -> int:
        return fixed + memory.tokens + length + sum(extra.tokens for extra in extras if extra.text)

    account = Account([])
    if system_prompt:
        account.add("system", system, True, "always")
    for extra in extras:
        if total() > budget and len(told) <= max_messages and BY_KIND[extra.kind].priority > HISTORY.priority:
            extra.leave("no room without dropping history")
    if total() > budget or len(told) > max_messages:
        turns = _turns(past, counter)
        room = budget - fixed - sum(extra.tokens for extra in extras if extra.text)
        kept, reason = _cut(turns, summary, budget, room, max_messages - len(own), counter)
        if summary is not None and extend:
            gone = [one for one in past[: len(past) - _count(kept)] if one.order > summary.until]
            if len(gone) <= AT_ONCE[0] and sum(len(one.content) for one in gone) <= AT_ONCE[1]:
                summary = summary.extended(gone, summary_limit(budget))
            else:
                reason += ", too large to be summarised at once"
        dropped = len(past) - _count(kept)
        if dropped:
            account.add("history", length - sum(turn.tokens for turn in kept), False, reason)
            past, length = past[dropped:], sum(turn.tokens for turn in kept)
            window_from = past[0].order if past else order
            memory = tell(summary, window_from, budget, counter)
        for extra in extras:
            if total() > budget:
                extra.leave("no room beside what must be told")
        without: set[str] = set()
        for kind in ("summary", "facts"):
            if total() > budget and memory.tokens:
                without.add(kind)
                memory = tell(summary, window_from, budget, counter, frozenset(without))
    _account(account, memory, length, extras, own, counter)
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages += _messages(past, own, memory.text, "".join(extra.text for extra in extras))
    details = {"budget_tokens": budget, "elements": account.entries, "counted_by": counter.name}
    bare = not any(extra.text for extra in extras)
    return Prompt(messages, window_from, total(), details, memory, summary, bare, budget, counter)


def _size(messages: Sequence[Remembered], counter: TokenCounter) -> int:
    return sum([m.tokens for m in messages] if counter is ESTIMATE else [m.size(counter) for m in messages])


def _turns(past: Sequence[Remembered], counter: TokenCounter) -> list[_Turn]:
    turns: list[_Turn] = []
    for message in past:
        if not turns or turns[-1].order != message.order:
            turns.append(_Turn(message.order, []))
        turns[-1].messages.append(message)
        turns[-1].tokens += message.size(counter)
    return turns


def _cut(
    turns: list[_Turn], summary: Summary | None, budget: int, room: int, most: int, counter: TokenCounter
) -> tuple[list[_Turn], str]:
    """The turns that stay, and why the others went. `room`: tokens for those and for the summary of these."""
    if not turns:
        return turns, ""
    if summary is not None and summary.until >= turns[0].order:
        kept = _beginning_with_a_question([turn for turn in turns if turn.order > summary.until])
        tokens, messages = sum(turn.tokens for turn in kept), _count(kept)
        beside = room - tell(summary, summary.until + 1, budget, counter).tokens
        if tokens <= min(ROOM * budget, beside) and messages <= ROOM * most:
            return kept, "beyond the window: dropped as one block, which the summary tells"
    goal = min(KEEP * budget, max(room - (SUMMARY.share + FACTS.share) * budget, 0))
    kept, fewest = [], KEEP_MESSAGES * most
    for turn in reversed(turns):
        goal, fewest = goal - turn.tokens, fewest - len(turn.messages)
        if goal < 0 or fewest < 0:
            break
        kept.insert(0, turn)
    return _beginning_with_a_question(kept), "beyond the window: dropped as one block"


def _count(turns: list[_Turn]) -> int:
    return sum(len(turn.messages) for turn in turns)


def _beginning_with_a_question(turns: list[_Turn]) -> list[_Turn]:
    for place, turn in enumerate(turns):
        if turn.messages[0].role == "user":
            return turns[place:]
    return []


def _account(
    account: Account, memory: Told, history: int, extras: list[Extra], own: list[Remembered], counter: TokenCounter
) -> None:
    left_out = dict(memory.left_out)
    for kind, tokens, note in (
        (SUMMARY.kind, memory.summary, memory.note),
        (FACTS.kind, memory.facts, 0 if memory.summary else memory.note),
    ):
        if tokens:
            account.add(kind, tokens + note, True, "of the turns before the history")
        if left_out.get(kind):
            account.add(
                kind, left_out[kind], False, "beyond its share" if tokens else "no room beside what must be told"
            )
    if history:
        account.add(HISTORY.kind, history, True, "recent turns")
    for extra in extras:
        extra.tell(account)
    account.add("message", _size(own, counter), True, "now")


def _messages(past: list[Remembered], own: list[Remembered], memory: str, extra: str) -> list[dict[str, str]]:
    messages = [{"role": m.role, "content": m.content} for m in (*past, *own)]
    if extra and own:
        messages[len(past)]["content"] = extra + messages[len(past)]["content"]
    if memory and messages and messages[0]["role"] == "user":
        messages[0]["content"] = memory + messages[0]["content"]
    elif memory:
        messages.insert(0, {"role": "user", "content": memory.rstrip()})
    return messages
