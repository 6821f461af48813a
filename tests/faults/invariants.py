"""What the ownership protocol promises, each as a function over a run's record: what breaks it, or None."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from domain.turn import MOVES
from tests.faults.record import Record, State

UNFINISHED = ("queued", "running")


def hosts_meet_only_the_domains_refusals(record: Record) -> str | None:
    return record.told.defects[0] if record.told.defects else None


def a_superseded_owner_writes_nothing(record: Record) -> str | None:
    for before, commit in zip(record.states, record.commits, strict=False):
        claim = commit.by.claim
        if claim is not None and claim != (before.epoch, before.activation) and commit.state != before:
            return f"{commit.by.host} wrote by {commit.by.call} with {claim} against {before.epoch}"
    return None


def each_activation_raises_the_epoch(record: Record) -> str | None:
    for before, commit in zip(record.states, record.commits, strict=False):
        raised = 1 if commit.by.call == "activate" else 0
        if commit.state.status != "gone" and commit.state.epoch != before.epoch + raised:
            return f"epoch {before.epoch} became {commit.state.epoch} by {commit.by.call}"
    return None


def an_acknowledged_message_stands_exactly_once(record: Record) -> str | None:
    last = record.states[-1]
    asked = [message for message in last.messages if message.role == "user"]
    for text, count in Counter(message.content for message in asked).items():
        if count > 1:
            return f"{text!r} stands {count} times"
    places = {message.content: (message.turn, message.seq) for message in asked}
    for ack in record.told.acks if last.status != "gone" else ():
        if ack.text not in places or ack.place not in (None, places[ack.text]):
            return f"{ack} is not stored"
    return None


def a_refused_message_leaves_nothing(record: Record) -> str | None:
    kept = {message.turn for state in record.states for message in state.messages} & record.told.refused
    return f"{kept} was refused and kept" if kept else None


def numbers_have_no_gap(record: Record) -> str | None:
    for state in record.states:
        seqs = [message.seq for message in state.messages]
        if seqs != list(range(1, len(seqs) + 1)) or (state.next_seq, state.count) != (len(seqs) + 1, len(seqs)):
            return f"{seqs}, next {state.next_seq}, counted {state.count}"
    return None


def a_turn_has_at_most_one_reply(record: Record) -> str | None:
    for state in record.states:
        replies = Counter(message.turn for message in state.messages if message.role == "assistant")
        for turn in state.turns:
            if replies[turn.id] > 1 or (turn.status == "completed") > replies[turn.id]:
                return f"{turn} has {replies[turn.id]} replies"
    return None


def a_turn_moves_only_forward(record: Record) -> str | None:
    allowed = {(str(before), str(after)) for (before, _), after in MOVES.items()}
    for before, after in pairwise(record.states):
        now = {turn.id: turn for turn in after.turns}
        for turn in before.turns if after.status != "gone" else ():
            if turn.id not in now:
                return f"{turn} is gone"
            step = (turn.status, now[turn.id].status)
            if (step[0] != step[1] and step not in allowed) or now[turn.id].attempt < turn.attempt:
                return f"{turn} became {now[turn.id]}"
    return None


def turns_run_one_at_a_time_in_order(record: Record) -> str | None:
    for state in record.states:
        waiting = [turn.id for turn in state.turns if turn.status in UNFINISHED]
        for turn in state.turns:
            if turn.status == "running" and turn.id != waiting[0]:
                return f"{turn} runs before {waiting[0]}"
    return None


def messages_stand_in_the_order_in_which_a_host_took_them(record: Record) -> str | None:
    for host in {ack.host for ack in record.told.acks}:
        seqs = [ack.place[1] for ack in record.told.acks if ack.host == host and ack.place is not None]
        if seqs != sorted(set(seqs)):
            return f"{host} took in {seqs}"
    return None


def the_next_owner_inherits_what_is_unfinished(record: Record) -> str | None:
    left = [turn.id for turn in record.states[-1].turns if turn.status in UNFINISHED]
    return None if record.inherited == left else f"{record.inherited} of {left}"


def an_ended_conversation_takes_nothing_in(record: Record) -> str | None:
    for before, after in pairwise(record.states):
        if before.status != "active" and (_asked(after) - _asked(before) or after.status == "active"):
            return f"a conversation that was {before.status} is {after.status} with {_asked(after)}"
    return None


def _asked(state: State) -> set[str]:
    return {turn.id for turn in state.turns}


INVARIANTS: tuple[Callable[[Record], str | None], ...] = (
    hosts_meet_only_the_domains_refusals,
    a_superseded_owner_writes_nothing,
    each_activation_raises_the_epoch,
    an_acknowledged_message_stands_exactly_once,
    a_refused_message_leaves_nothing,
    numbers_have_no_gap,
    a_turn_moves_only_forward,
    a_turn_has_at_most_one_reply,
    turns_run_one_at_a_time_in_order,
    messages_stand_in_the_order_in_which_a_host_took_them,
    the_next_owner_inherits_what_is_unfinished,
    an_ended_conversation_takes_nothing_in,
)


def broken(record: Record) -> dict[str, str]:
    """What a run breaks: the invariants' names, and how."""
    found = {invariant.__name__: invariant(record) for invariant in INVARIANTS}
    return {name: how for name, how in found.items() if how is not None}
