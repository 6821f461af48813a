"""For each violation a clean history and the change that makes it wrong."""

from dataclasses import replace
from typing import Any

from domain.events import COMPLETED, DELTA, INTENT, RESET
from domain.turn import TurnStatus
from tests.faults.history import TurnState
from tests.unit.history_examples import (
    AB,
    ALSO,
    DONE,
    EVENTS,
    FOUR,
    HI,
    HO,
    C,
    Change,
    also,
    both,
    but,
    call,
    event,
    gone,
    message,
    nothing,
    provided,
    stored,
    streamed,
    without,
)

E1, E2, E3, E4, E5 = EVENTS
ASKED = message(5, "turn_3", "user", "more")
RUNNING = replace(DONE, status=TurnStatus.RUNNING)
MISSING: dict[str, Any] = {"outcome": "refused", "http": 404, "code": "not_found"}
UNHEARD = without(3, 4, 6)  # nobody looked between the sends and the end
UNKNOWN = call(7, "send", key="k7", content="more", outcome="unknown")
NEWER = replace(ALSO, id="turn_3")
THREE = (DONE, ALSO, NEWER)
ANEW = call(7, "regenerate", message_id="msg_4", turn=NEWER, user_message=HO)
OTHER = message(5, "turn_3", "assistant", "anew")
DELETED = both(also(call(8, "delete")), gone)
LOOK = call(7, "look", turn_id="turn_1", turn=DONE)
BROKEN: dict[str, Any] = {"turn_id": "turn_1", "events": (E1, E2), "ended": 75.0, "outcome": "unknown"}
READ_AGAIN = call(7, "stream", turn_id="turn_1", events=EVENTS)
SECOND = (
    E1,
    event(2, 1, RESET, reason="lost"),
    event(2, 2, DELTA, text="a b"),
    event(2, 3, COMPLETED, message=E5.data["message"]),
)
AGAIN = replace(DONE, attempt=2)
TWICE = both(streamed(*SECOND), but(2, turn=AGAIN), stored(turns=(AGAIN, ALSO)))  # it took two attempts
CANCELLED = TurnState("turn_2", TurnStatus.CANCELLED, 1)
CUT = message(4, "turn_2", "assistant", "c", "cancelled")


def retry(number: int = 7, **fields: Any) -> Change:
    """The first send again."""
    told: dict[str, Any] = {"key": "k2", "content": "hi", "turn": DONE, "user_message": HI, "reply": AB, "retry_of": 2}
    return also(call(number, "send", **{**told, **fields}))


def moved(one: int, other: int) -> Change:
    """Two messages have exchanged their numbers."""
    places = {FOUR[one].id: FOUR[other].seq, FOUR[other].id: FOUR[one].seq}
    found = [replace(each, seq=places.get(each.id, each.seq)) for each in FOUR]
    return stored(*sorted(found, key=lambda each: each.seq))


UNSEEN: dict[str, Any] = {"turn": None, "user_message": None, "reply": None, "outcome": "unknown"}
REFUSED: dict[str, Any] = {"outcome": "refused", "http": 409, "code": "conversation_busy"}
MISMATCH: dict[str, Any] = {**UNSEEN, "outcome": "refused", "http": 422, "code": "idempotency_mismatch"}

DEFECTS: dict[str, tuple[Change, Change]] = {
    "key_reused": (nothing, but(5, key="k2")),
    "retry_differs": (retry(), but(7, turn=ALSO)),
    "retry_refused": (retry(), but(7, **UNSEEN | REFUSED)),
    "false_mismatch": (retry(content="other", **MISMATCH), but(7, content="hi")),
    "content_changed": (nothing, but(2, content="hello")),
    "message_lost": (nothing, stored(HI, AB, HO)),
    "message_repeated": (nothing, stored(*FOUR, C)),
    "message_changed": (nothing, stored(HI, AB, HO, replace(C, content="d"))),
    "message_from_nowhere": (nothing, stored(*FOUR, ASKED)),
    "sent_twice": (also(UNKNOWN), stored(*FOUR, ASKED, message(6, "turn_4", "user", "more"))),
    "refused_but_there": (also(replace(UNKNOWN, **REFUSED)), stored(*FOUR, ASKED)),
    "seq_gap": (UNHEARD, stored(HI, AB, HO, replace(C, seq=5))),
    "seq_repeated": (nothing, stored(HI, AB, HO, replace(C, seq=3))),
    "two_user_messages": (also(UNKNOWN), stored(*FOUR, replace(ASKED, turn="turn_2"))),
    "two_replies": (nothing, stored(*FOUR, replace(OTHER, turn="turn_2"))),
    "two_standing_replies": (
        both(also(ANEW), stored(*FOUR, OTHER, superseded={"msg_4": "msg_5", "msg_5": None}, turns=THREE)),
        stored(superseded={"msg_4": None, "msg_5": None}),
    ),
    "reply_lost": (both(UNHEARD, but(5, **UNSEEN)), stored(HI, AB, HO)),
    "reply_status": (UNHEARD, stored(HI, AB, HO, replace(C, status="failed"))),
    "reply_before_message": (UNHEARD, moved(2, 3)),
    "reply_from_nowhere": (
        both(also(ANEW), stored(*FOUR, OTHER, superseded={}, turns=THREE)),
        without(7),
    ),
    "replies_out_of_order": (both(UNHEARD, but(5, **UNSEEN, began=4.5), but(2, **UNSEEN)), moved(1, 3)),
    "never_ended": (
        both(UNHEARD, but(5, **UNSEEN)),
        stored(HI, AB, HO, turns=(DONE, replace(ALSO, status=TurnStatus.QUEUED))),
    ),
    "order": (both(UNHEARD, but(5, reply=None, user_message=None), but(2, reply=None, user_message=None)), moved(0, 2)),
    "stale_read": (nothing, but(6, messages=(HI, AB))),
    "read_gap": (nothing, but(6, messages=(HI, AB, C))),
    "read_ahead": (nothing, but(4, messages=FOUR)),
    "status_fell": (also(LOOK), but(7, turn=RUNNING)),
    "ended_turn_changed": (also(LOOK), but(7, turn=replace(DONE, status=TurnStatus.FAILED))),
    "attempt_fell": (both(TWICE, also(replace(LOOK, turn=AGAIN))), but(7, turn=DONE)),
    "cancel_undone": (
        both(
            also(call(7, "cancel", 10.2, turn_id="turn_2", turn=replace(ALSO, status=TurnStatus.RUNNING))),
            but(5, turn=CANCELLED, reply=CUT),
            but(6, messages=(HI, AB, HO, CUT)),
            stored(HI, AB, HO, CUT, turns=(DONE, CANCELLED)),
        ),
        both(but(5, turn=ALSO, reply=C), but(6, messages=FOUR), stored(*FOUR, turns=(DONE, ALSO))),
    ),
    "wrong_turn": (nothing, streamed(E1, E2, replace(E3, turn_id="turn_2"), E4, E5)),
    "stream_start": (nothing, streamed(E2, E3, E4, E5)),
    "event_gap": (streamed(E3, E4, E5, after="turn_1/1/2"), streamed(E4, E5, after="turn_1/1/2")),
    "event_repeated": (streamed(E3, E4, E5, after="turn_1/1/2"), streamed(E2, E3, E4, E5, after="turn_1/1/2")),
    "opening_misplaced": (TWICE, streamed(E1, event(2, 1, DELTA, text=""), *SECOND[2:])),
    "intent_repeated": (
        streamed(E1, event(1, 2, INTENT), E3, E4, E5),
        streamed(E1, event(1, 2, INTENT), E3, E4, event(1, 5, INTENT)),
    ),
    "event_after_end": (nothing, streamed(*EVENTS, event(1, 6, DELTA, text="!"))),
    "event_differs": (also(READ_AGAIN), streamed(E1, E2, E4, replace(E3, n=4), E5)),
    "stream_behind": (TWICE, streamed(E1, E2, E3)),
    "stream_without_end": (nothing, streamed(E1, E2, E3)),
    "stream_silent": (also(call(7, "stream", **BROKEN)), also(call(7, "stream", silent=True, **BROKEN))),
    "text_differs": (nothing, streamed(E1, E2, E3, event(1, 4, DELTA, text=" B"), E5)),
    "text_not_provided": (nothing, provided("turn_1", "a", "c")),
    "deleted_came_back": (DELETED, also(call(9, "read", messages=FOUR))),
    "conversation_lost": (nothing, also(call(7, "read", **MISSING))),
    "turn_lost": (nothing, also(call(7, "look", turn_id="turn_1", **MISSING))),
}
