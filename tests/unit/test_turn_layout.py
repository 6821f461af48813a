"""What is stored of a stream agrees with whatever its readers have had, though answers of the journal were lost."""

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import event, given
from hypothesis import strategies as st

from actors.turn import LiveTurn, unjournalled
from domain.commands import UnfinishedTurn
from domain.events import ACCEPTED, DELTA, INTENT, MODEL, Entry
from domain.generation import Outcome
from domain.message import Message
from domain.turn import Turn, TurnStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPENING = [(ACCEPTED, {"user_message": {}}), (MODEL, {"model": "m", "reason": "named"})]


@dataclass(frozen=True)
class Write:
    """`owner`: its intent, else a delta of so many characters. `taken` into the journal, and `answered`."""

    owner: bool
    length: int = 1
    taken: bool = True
    answered: bool = True


@st.composite
def streams(draw: st.DrawFn) -> list[Write]:
    """Deltas in order, the last of which may be unanswered, and an intent anywhere among them."""
    deltas = [Write(False, draw(st.integers(1, 9))) for _ in range(draw(st.integers(0, 5)))]
    if deltas and draw(st.booleans()):
        deltas[-1] = Write(False, deltas[-1].length, draw(st.booleans()), False)
    if draw(st.booleans()):
        intent = draw(
            st.sampled_from([Write(True), Write(True, taken=True, answered=False), Write(True, 1, False, False)])
        )
        deltas.insert(draw(st.integers(0, len(deltas))), intent)
    return deltas


def live_turn() -> LiveTurn:
    turn = Turn(id="turn_1", conversation_id="conv_1", status=TurnStatus.RUNNING, created_at=NOW)
    message = Message(
        id="msg_1", conversation_id="conv_1", turn_id="turn_1", seq=1, role="user", content="hello", created_at=NOW
    )
    return LiveTurn.of(UnfinishedTurn(turn, message, "m", {}, live=True, understand=True))


@given(streams(), st.integers(0, 20), st.booleans())
async def test_the_layout_begins_with_all_that_readers_may_have_had(
    writes: list[Write], more: int, opened: bool
) -> None:
    """Not `opened`: nobody answered the opening, so that the owner does not know of it."""
    live, told, length = live_turn(), [{"type": ACCEPTED}, {"type": MODEL, **OPENING[1][1]}], more
    if opened:
        live.note(1, OPENING)
    stream: list[Entry] = list(told)
    deltas: list[tuple[int, int]] = []
    unanswered: Entry | None = None
    for write in writes:
        entry: Entry = {"type": INTENT, "intent": "x"} if write.owner else write.length
        length += 0 if write.owner else write.length
        if write.taken:
            stream.append(entry)
        if write.owner and write.answered:
            live.note(len(stream), [(INTENT, {"intent": "x"})])
        elif write.owner and live.n:
            live.doubt([(INTENT, {"intent": "x"})])
        elif write.owner:
            continue
        elif write.answered:
            deltas.append((len(stream), write.length))
        else:
            unanswered = write.length
    outcome = Outcome("completed", "t" * length, deltas=tuple(deltas), unanswered=unanswered)
    layout = live.layout(outcome)
    if not opened:
        assert layout in (None, unjournalled())
        return
    if layout is None:
        event("nobody knows")
        assert sum(not write.answered for write in writes) == 2
        return
    assert layout[: len(stream)] == stream
    assert sum(entry for entry in layout if isinstance(entry, int)) == length


async def test_a_turn_that_no_journal_held_says_so() -> None:
    assert live_turn().layout(Outcome("completed", "text")) == [{"type": ACCEPTED, "resumable": False}]


async def test_an_opening_that_was_not_answered_stands_first_if_at_all() -> None:
    live = live_turn()
    opening = [("turn.reset", {"reason": "x"}), *OPENING[1:]]
    live.doubt(opening)
    assert live.layout(Outcome("completed", "text")) == [*({"type": kind, **data} for kind, data in opening), 4]
    live.doubt([(INTENT, {"intent": "x"})])
    assert live.layout(Outcome("completed", "")) == [
        *({"type": kind, **data} for kind, data in opening),
        {"type": INTENT, "intent": "x"},
    ]
    assert live.layout(Outcome("completed", "text", unanswered=4)) is None
    live.doubt(opening)
    assert live.layout(Outcome("completed", "text")) is None, "it was said twice"
    assert live.layout(Outcome("completed", "text", deltas=((3, 4),))) is None
    live.note(3, [(DELTA, {"text": "text"})])
    assert live.layout(Outcome("completed", "text")) is None
