"""What follows on an attempt to deliver: by examples, and for all answers that there may be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.channels import RECEIPTS, Binding, Sent
from domain.cloud_events import Fact, matches
from domain.deliveries import DAY, DELAYS, LONGEST, MOVES, OURS, IllegalDelivery, Retry, Tried, lost, move, verdict
from domain.delivery_plan import Listener, Origin, for_channels, for_webhooks
from domain.subscribers import PATTERN

NOW = datetime(2026, 1, 1, tzinfo=UTC)
results = st.sampled_from(["taken", "later", "gone", None])
afters = st.none() | st.floats(0, 3 * DAY)
chances = st.floats(0, 0.999)


def sent(result, after=None):
    return None if result is None else Sent(result, after=after)


def tried(attempts, elapsed):
    """By a service that was never away."""
    return Tried(attempts, elapsed, elapsed)


@given(st.lists(st.tuples(results, afters, chances, st.floats(0, 15)), min_size=1, max_size=60))
def test_a_delivery_ends_once_within_a_day_and_is_tried_no_more_then(attempts):
    """The clock goes on by each wait and by what each attempt takes."""
    elapsed, retry = 0.0, Retry()
    for n, (result, after, chance, takes) in enumerate(attempts, 1):
        found = verdict(sent(result, after), tried(n, elapsed + takes), retry, chance)
        assert (found.wait is not None) == (found.status == "waiting")
        if found.status == "waiting":
            assert result == "later" and found.wait >= 0
            asked = max(after or 0.0, DELAYS[min(n, len(DELAYS)) - 1] * 0.9)
            assert elapsed + takes + found.wait <= DAY + 1e-6
            assert found.wait >= min(asked, DAY - elapsed - takes) - 1e-6, "never before it was asked to"
            elapsed += takes + found.wait
            continue
        assert found.status == {"taken": "delivered", "gone": "failed", None: "skipped", "later": "failed"}[result]
        assert found.why == {"gone": "gone", "later": "exhausted"}.get(result)
        assert result != "later" or elapsed + takes >= DAY, "not given up before its time"
        return
    assert elapsed <= DAY + 1e-6


def test_a_receiver_that_never_answers_is_tried_eight_times_over_a_day():
    elapsed, times = 0.0, []
    for n in range(1, 100):
        times.append(round(elapsed))
        found = verdict(Sent("later"), tried(n, elapsed), Retry(jitter=0), 0.5)
        if found.status != "waiting":
            break
        elapsed += found.wait
    assert times == [0, 5, 305, 2105, 9305, 27_305, 63_305, 86_400]
    assert found.why == "exhausted"


@given(
    st.sampled_from(["delivered", "failed", "skipped"]), st.sampled_from(["taken", "later", "gone", "over", "nothing"])
)
def test_nothing_follows_on_an_end(status, came):
    assert (status, came) not in MOVES
    with pytest.raises(IllegalDelivery):
        move(status, came)


def test_receipts_never_take_back_what_was_seen():
    order = {"sent": 0, "failed": 0, "delivered": 1, "read": 2}
    for before, after in RECEIPTS.items():
        for one in after - {"failed"}:
            assert before is None or order[one] > order[before]
    assert "failed" not in RECEIPTS["delivered"] | RECEIPTS["read"]


@pytest.mark.parametrize(
    ("patterns", "type", "wanted"),
    [
        (["*"], "turn.completed", True),
        (["turn.*"], "turn.completed", True),
        (["turn.*"], "turns.completed", False),
        (["turn.*"], "turn", False),
        (["turn.completed"], "turn.completed", True),
        (["turn.completed"], "turn.completed.x", False),
        (["message.*", "turn.failed"], "turn.completed", False),
        ([], "turn.completed", False),
    ],
)
def test_patterns(patterns, type, wanted):
    assert matches(patterns, type) is wanted
    assert all(PATTERN.fullmatch(one) for one in patterns)


@pytest.mark.parametrize("pattern", ["", ".", "turn.", "*.turn", "turn*", "turn.**", "Turn.x", "a b", "turn.*.x"])
def test_what_is_no_pattern(pattern):
    assert not PATTERN.fullmatch(pattern)


def fact(topic="turn.completed", **payload):
    return Fact(7, "ten_a", topic, {"conversation_id": "conv_a", **payload}, NOW)


def binding(channel, kind="webhook", at=NOW - timedelta(hours=1)):
    return Binding("ten_a", channel, kind, f"thread of {channel}", "conv_a", "ann", at)


def planned(fact, *bindings, origin=None):
    origins = {} if origin is None else {fact.payload["message_id"]: origin}
    return [(one.channel, one.type, one.event["in_reply_to"]) for one in for_channels(fact, bindings, origins)]


def test_a_message_goes_to_all_channels_and_its_own_hears_which_ids_it_got():
    received = fact("message.received", message_id="msg_a", turn_id="turn_a")
    found = planned(received, binding("chn_a"), binding("chn_b"), origin=Origin("chn_a", "ext-1"))
    assert found == [("chn_a", "receipt", "ext-1"), ("chn_b", "message", None)]
    assert planned(received, binding("chn_a")) == [("chn_a", "message", None)], "one written over the API"
    reply = fact(message_id="msg_b", turn_id="turn_a")
    assert planned(reply, binding("chn_a"), binding("chn_b")) == [
        ("chn_a", "message", None),
        ("chn_b", "message", None),
    ]


def test_channels_are_shown_what_people_see_and_no_more():
    one = binding("chn_a")
    assert planned(fact("turn.failed", turn_id="turn_a"), one) == [("chn_a", "error", None)]
    assert planned(fact("turn.failed", turn_id="turn_a", message_id="msg_b"), one) == [("chn_a", "message", None)]
    assert planned(fact("turn.cancelled", turn_id="turn_a", message_id=None), one) == []
    assert planned(fact("message.deleted", message_id="msg_b"), one) == [("chn_a", "deleted", None)]
    assert planned(fact("conversation.ended"), one) == [("chn_a", "ended", None)]
    for topic in ("message.appended", "conversation.created", "conversation.updated", "message.regenerating"):
        assert planned(fact(topic, message_id="msg_b"), one) == []
    assert planned(fact(message_id="msg_b"), binding("chn_a", at=NOW + timedelta(seconds=1))) == [], "of before it"
    assert planned(fact(message_id="msg_b"), binding("chn_a", "widget")) == [], "it reads for itself"


def test_an_event_has_one_id_for_all_that_hear_it():
    listeners = [Listener(f"whk_{n}", ("turn.*",), NOW) for n in range(3)]
    found = list(for_webhooks(fact(message_id="msg_b"), listeners))
    assert len({one.event_id for one in found}) == 1 and [one.webhook for one in found] == ["whk_0", "whk_1", "whk_2"]
    assert {one.stream for one in found} == {"conv_a"} and {one.message for one in found} == {"msg_b"}


@given(st.integers(1, 50), st.floats(0, 30 * DAY), st.floats(0, 30 * DAY), chances)
def test_what_this_service_could_not_try_is_never_the_last_attempt_and_looked_at_within_a_minute(
    attempts, elapsed, waited, chance
):
    found = verdict(Sent("later", ours=True), Tried(attempts, elapsed, elapsed, waited), Retry(), chance)
    assert (found.status, found.why) == ("waiting", None)
    assert found.wait is not None and OURS[0] * 0.9 <= found.wait <= OURS[1] * 1.1


@given(st.floats(0, DAY, exclude_max=True), st.floats(0, 30 * DAY), st.integers(1, 50))
def test_a_delivery_tried_as_often_as_in_a_day_ends_after_a_week_however_long_the_service_was_away(
    elapsed, wall, attempts
):
    found = verdict(Sent("later"), Tried(attempts, elapsed, wall), Retry(), 0.5)
    assert (found.why == "exhausted") is (wall >= LONGEST and attempts >= 8)


def test_attempts_that_nobody_ended_end_a_delivery_once_its_time_is_over_and_only_it():
    late, retry = Tried(9, DAY, DAY), Retry()
    assert lost(late, retry) is None, "its last attempt is made"
    assert lost(replace(late, unended=2), retry) is None, "processes end"
    found = lost(replace(late, unended=3), retry)
    assert found is not None and (found.status, found.why) == ("failed", None)
    assert lost(Tried(9, DAY - 1, DAY - 1, unended=50), retry) is None
