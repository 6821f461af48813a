"""A service that is what the real one promises to be, and clients that talk to it at once: histories that are clean.

Each call takes effect at one moment between its beginning and its end, or never; of some the client hears no answer.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from domain.events import ACCEPTED, CANCELLED, COMPLETED, DELTA, FAILED, INTENT, MODEL, RESET, Event
from domain.turn import TurnStatus
from tests.faults.history import Message, TurnState

ENDS = {COMPLETED: TurnStatus.COMPLETED, FAILED: TurnStatus.FAILED, CANCELLED: TurnStatus.CANCELLED}


@dataclass(slots=True)
class Turn:
    id: str
    asked: Message
    regenerates: bool
    status: TurnStatus = TurnStatus.QUEUED
    attempt: int = 1
    text: str = ""
    cancelled: bool = False
    reply: Message | None = None
    events: list[Event] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def say(self, kind: str, **data: Any) -> None:
        last = self.events[-1] if self.events else None
        n = last.n + 1 if last is not None and last.attempt == self.attempt else 1
        self.events.append(Event(self.id, self.attempt, n, kind, data))

    def state(self) -> TurnState:
        return TurnState(self.id, self.status, self.attempt)

    def after(self, attempt: int, n: int) -> list[Event]:
        """What a reader at this place is told: an older attempt goes on with the current one."""
        if attempt == self.attempt:
            return [event for event in self.events if event.attempt == attempt and event.n > n]
        opening = self.events[:1] if n == 0 else []
        return opening + [event for event in self.events if event.attempt == self.attempt]


@dataclass(slots=True)
class Conversation:
    id: str
    messages: list[Message] = field(default_factory=list)
    unfinished: list[Turn] = field(default_factory=list)
    superseded: dict[str, str | None] = field(default_factory=dict)
    standing: dict[str, str] = field(default_factory=dict)  # reply by the message that it answers

    def append(self, name: str, turn: str, role: Any, content: str, status: Any = "completed") -> Message:
        message = Message(name, self.id, turn, len(self.messages) + 1, role, content, status)
        self.messages.append(message)
        return message


class Service:
    """Every method is one moment. None instead of a conversation or a turn: it is not there."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.conversations: dict[str, Conversation] = {}
        self.turns: dict[str, Turn] = {}
        self.all_turns: dict[str, list[Turn]] = {}
        self.homes: dict[str, str] = {}  # conversation by turn, also of what was deleted
        self.keys: dict[str, tuple[str, str]] = {}
        self._busy: dict[str, Conversation] = {}
        self._numbers: dict[str, int] = {}

    def name(self, kind: str) -> str:
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return f"{kind}_{self._numbers[kind]}"

    def create(self) -> str:
        made = Conversation(self.name("conv"))
        self.conversations[made.id], self.all_turns[made.id] = made, []
        return made.id

    def delete(self, conversation: str) -> bool:
        for turn in self.all_turns.get(conversation, []):
            self.turns.pop(turn.id, None)
        self._busy.pop(conversation, None)
        return self.conversations.pop(conversation, None) is not None

    def send(self, conversation: Conversation, content: str, anew: Message | None = None) -> Turn:
        name = self.name("turn")
        asked = anew or conversation.append(self.name("msg"), name, "user", content)
        turn = self.turns[name] = Turn(name, asked, anew is not None)
        turn.status = TurnStatus.QUEUED if conversation.unfinished else TurnStatus.RUNNING
        turn.say(ACCEPTED, user_message=body(asked))
        conversation.unfinished.append(turn)
        self.all_turns[conversation.id].append(turn)
        self.homes[name] = conversation.id
        self._busy[conversation.id] = conversation
        return turn

    def cancel(self, turn: Turn) -> None:
        if turn.status.ended:
            return
        turn.cancelled = True
        if turn.status is TurnStatus.QUEUED:
            self._end(self.conversations[turn.asked.conversation], turn, CANCELLED)

    def work(self) -> bool:
        """One step of one turn; whether anything is left to be done."""
        if not self._busy:
            return False
        conversation = self._busy[self.random.choice(tuple(self._busy))]
        turn = conversation.unfinished[0]
        if turn.status is TurnStatus.QUEUED:
            turn.status = TurnStatus.RUNNING
        elif turn.cancelled:
            self._end(conversation, turn, CANCELLED)
        elif not turn.calls:
            turn.calls.append("")
            turn.say(MODEL, model="small", reason="named")
        elif (dice := self.random.random()) < 0.5:
            word = f" w{self.random.randrange(1000)}"
            turn.text += word
            turn.calls[-1] += word
            turn.say(DELTA, text=word)
        elif dice < 0.55 and turn.attempt < 3:
            turn.attempt, turn.text = turn.attempt + 1, ""
            turn.calls.append("")
            turn.say(RESET, reason="lost")
        elif dice < 0.6 and INTENT not in {event.type for event in turn.events}:
            turn.say(INTENT, intent={"name": "greeting"})
        elif dice > 0.8:
            self._end(conversation, turn, FAILED if dice > 0.97 else COMPLETED)
        return True

    def _end(self, conversation: Conversation, turn: Turn, kind: str) -> None:
        turn.status = ENDS[kind]
        if turn.text or kind == COMPLETED:
            turn.reply = conversation.append(self.name("msg"), turn.id, "assistant", turn.text, turn.status.value)
            self._stand(conversation, turn, turn.reply.id)
        turn.say(kind, message=turn.reply and body(turn.reply))
        conversation.unfinished.remove(turn)
        if not conversation.unfinished:
            del self._busy[conversation.id]

    def _stand(self, conversation: Conversation, turn: Turn, reply: str) -> None:
        """A whole reply takes the place of the one before; another one only where none stands."""
        before = conversation.standing.get(turn.asked.id)
        if before is None or turn.status is TurnStatus.COMPLETED:
            conversation.standing[turn.asked.id], conversation.superseded[reply] = reply, None
            if before is not None:
                conversation.superseded[before] = reply
        else:
            conversation.superseded[reply] = before


def body(message: Message) -> dict[str, Any]:
    """As the API has it."""
    named = {"conversation_id": message.conversation, "turn_id": message.turn}
    return {name: getattr(message, name) for name in ("id", "seq", "role", "content", "status")} | named
