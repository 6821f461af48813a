"""Single corruptions of a clean history. Each takes the history and a source of chance and gives the corrupted one, or
None where the history has no place for it; by its side the violations of which a checker must find one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from domain.events import ACCEPTED, Event
from tests.faults.facts import facts_of
from tests.faults.history import History, Message, Operation, Stored
from tests.faults.requests import requests_of

T = TypeVar("T")
Corruption = Callable[[History, Random], History | None]


class Corruptions(dict[str, tuple[Corruption, frozenset[str]]]):
    """By name, each with the violations of which one must be found."""

    def found_as(self, *names: str) -> Callable[[Corruption], Corruption]:
        def keep(corruption: Corruption) -> Corruption:
            self[corruption.__name__] = (corruption, frozenset(names))
            return corruption

        return keep


OF_MESSAGES = Corruptions()


def one_of(random: Random, places: Sequence[T]) -> T | None:
    return random.choice(places) if places else None


def end_of(history: History) -> float:
    return max((call.ended for call in history.operations), default=0.0) + 1


def later(history: History, kind: Any, conversation: str, **fields: Any) -> History:
    """With one more call, after all others."""
    began, number = end_of(history), len(history.operations) + 10_000
    call = Operation(number, "late", kind, conversation, began, began + 1, **fields)
    return replace(history, operations=[*history.operations, call])


def instead(history: History, old: Operation, **fields: Any) -> History:
    new = replace(old, **fields)
    return replace(history, operations=[new if one is old else one for one in history.operations])


def kept(history: History, conversation: str, messages: Sequence[Message]) -> History:
    stored = replace(history.stored[conversation], messages=tuple(messages))
    return replace(history, stored={**history.stored, conversation: stored})


def standing(history: History) -> list[Message]:
    return [message for stored in history.stored.values() for message in stored.messages or ()]


def beside(history: History, conversation: str) -> tuple[Message, ...]:
    """What stands in this conversation."""
    return history.stored[conversation].messages or ()


@OF_MESSAGES.found_as("seq_gap")
def a_message_is_dropped(history: History, random: Random) -> History | None:
    places = [one for one in standing(history) if one != beside(history, one.conversation)[-1]]
    gone = one_of(random, places)
    if gone is None:
        return None
    return kept(history, gone.conversation, [one for one in beside(history, gone.conversation) if one != gone])


@OF_MESSAGES.found_as("message_repeated")
def a_message_is_doubled(history: History, random: Random) -> History | None:
    more = one_of(random, standing(history))
    if more is None:
        return None
    return kept(history, more.conversation, [*beside(history, more.conversation), more])


@OF_MESSAGES.found_as("sent_twice", "message_from_nowhere")
def a_send_is_taken_twice(history: History, random: Random) -> History | None:
    sent = one_of(random, [one for one in standing(history) if one.role == "user"])
    if sent is None or any(call.outcome == "unknown" and call.content == sent.content for call in history.operations):
        return None
    messages = beside(history, sent.conversation)
    more = replace(sent, id="msg_more", turn="turn_more", seq=len(messages) + 1)
    return kept(history, sent.conversation, [*messages, more])


@OF_MESSAGES.found_as("order")
def two_ordered_messages_are_swapped(history: History, random: Random) -> History | None:
    facts = facts_of(history)
    seen = [list(messages.values()) for name, messages in facts.seen.items() if history.stored[name].messages]
    pairs = [(a.message, b.message) for all_ in seen for a in all_ for b in all_ if a.since < facts.earliest(b.message)]
    pair = one_of(random, pairs)
    if pair is None:
        return None
    places = {pair[0].id: pair[1].seq, pair[1].id: pair[0].seq}

    def moved(message: Message | None) -> Message | None:
        return message and replace(message, seq=places.get(message.id, message.seq))

    def told(event: Event) -> Event:
        name = "user_message" if event.type == ACCEPTED else "message"
        found = event.data.get(name)
        if not found or found["id"] not in places:
            return event
        return replace(event, data={**event.data, name: {**found, "seq": places[found["id"]]}})

    calls = [
        replace(
            call,
            user_message=moved(call.user_message),
            reply=moved(call.reply),
            messages=tuple(filter(None, map(moved, call.messages))),
            events=tuple(map(told, call.events)),
        )
        for call in history.operations
    ]
    changed = replace(history, operations=calls)
    messages = [one for one in map(moved, beside(history, pair[0].conversation)) if one]
    return kept(changed, pair[0].conversation, sorted(messages, key=lambda one: one.seq))


@OF_MESSAGES.found_as("message_changed", "message_from_nowhere", "text_not_provided")
def a_stored_text_is_changed(history: History, random: Random) -> History | None:
    old = one_of(random, standing(history))
    if old is None:
        return None
    new = replace(old, content=old.content + "!")
    return kept(history, old.conversation, [new if one == old else one for one in beside(history, old.conversation)])


@OF_MESSAGES.found_as("two_replies")
def a_turn_is_answered_twice(history: History, random: Random) -> History | None:
    reply = one_of(random, [one for one in standing(history) if one.role == "assistant"])
    if reply is None:
        return None
    messages = beside(history, reply.conversation)
    return kept(history, reply.conversation, [*messages, replace(reply, id="msg_more", seq=len(messages) + 1)])


@OF_MESSAGES.found_as("refused_but_there")
def a_refused_message_stands(history: History, random: Random) -> History | None:
    requests = [one for bodies in requests_of(history.operations) for one in bodies if one.first.kind == "send"]
    taken = {one.first.content for one in requests if not one.refused}
    places = [one.first for one in requests if one.refused and one.first.content not in taken]
    there = [one for one in places if one.conversation in history.stored]
    call = one_of(random, [one for one in there if history.stored[one.conversation].messages is not None])
    if call is None:
        return None
    messages = beside(history, call.conversation)
    more = Message("msg_more", call.conversation, "turn_more", len(messages) + 1, "user", call.content)
    return kept(history, call.conversation, [*messages, more])


@OF_MESSAGES.found_as("stale_read")
def a_read_sees_nothing(history: History, random: Random) -> History | None:
    message = one_of(random, [one for call in history.operations for one in call.messages])
    return None if message is None else later(history, "read", message.conversation)


@OF_MESSAGES.found_as("read_gap")
def a_read_leaves_one_out(history: History, random: Random) -> History | None:
    call = one_of(random, [one for one in history.operations if len(one.messages) > 1])
    return None if call is None else instead(history, call, messages=call.messages[1:])


def _deleted(history: History, random: Random) -> str | None:
    ended = [call.conversation for call in history.operations if call.kind == "delete" and call.outcome == "ok"]
    return one_of(random, ended)


@OF_MESSAGES.found_as("deleted_came_back")
def a_deleted_conversation_is_read(history: History, random: Random) -> History | None:
    place = _deleted(history, random)
    return None if place is None else later(history, "read", place)


@OF_MESSAGES.found_as("deleted_came_back")
def a_deleted_conversation_is_kept(history: History, random: Random) -> History | None:
    place = _deleted(history, random)
    return None if place is None else replace(history, stored={**history.stored, place: Stored(place, ())})


@OF_MESSAGES.found_as("conversation_lost")
def a_conversation_is_lost(history: History, random: Random) -> History | None:
    deleted = facts_of(history).deletable
    made = [call.conversation for call in history.operations if call.kind == "create" and call.acknowledged]
    place = one_of(random, [name for name in made if name not in deleted])
    return None if place is None else replace(history, stored={**history.stored, place: Stored(place)})
