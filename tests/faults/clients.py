"""Clients of the sequential service, all at once: each call is begun, takes effect, and ends at a moment of its own."""

from dataclasses import dataclass, field, replace
from random import Random

from domain.events import ACCEPTED
from tests.faults.history import History, Kind, Operation, Provided, Stored
from tests.faults.sequential import Service, Turn

CLIENTS = 4
CONVERSATIONS = 3  # as many as are alive at a time


@dataclass(slots=True)
class Going:
    """A call under way: `done` once it has taken effect, `turn` what it waits for, `place` where its stream goes on."""

    call: Operation
    streamed: bool = False
    done: bool = False
    since: float = 0.0
    turn: Turn | None = None
    place: tuple[int, int] = (1, 0)


@dataclass(slots=True)
class Clients:
    service: Service
    random: Random
    number: int
    deletes: bool = True
    history: History = field(default_factory=History)
    now: float = 0.0
    going: dict[str, Going] = field(default_factory=dict)
    living: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    sent: list[Operation] = field(default_factory=list)
    begun: int = 0

    def step(self) -> None:
        self.now += 1.0
        client = f"c{self.random.randrange(CLIENTS)}"
        going = self.going.get(client)
        if self.random.random() < 0.5:
            self.service.work()
        elif going is None:
            if self.begun < self.number:
                self.going[client] = self._begin(client)
        elif not going.done:
            self._take_effect(going)
        else:
            self._end(client, going)

    def _begin(self, client: str) -> Going:
        self.begun += 1
        dice, number = self.random.random(), self.begun
        base = Operation(number, client, "create", "", self.now, self.now)
        streamed = dice < 0.5
        if len(self.living) < CONVERSATIONS:
            return Going(replace(base, key=f"k{number}"))
        conversation = self.random.choice(self.living)
        base = replace(base, conversation=conversation)
        if dice < 0.4:
            key = f"k{number}" if dice < 0.3 else None
            base = replace(base, kind="send", key=key, content=f"m{number}", options={"model": "small"})
            self.sent.append(base)
            return Going(base, self.random.random() < 0.5)
        if dice < 0.5 and self.sent:
            again = self.random.choice(self.sent[-8:])
            content = again.content if dice < 0.47 or again.key is None else f"{again.content} other {number}"
            return Going(replace(again, id=number, client=client, began=self.now, retry_of=again.id, content=content))
        if dice < 0.7 or not self.known:
            return Going(replace(base, kind="read"))
        if dice < 0.72 and self.deletes:
            self.living.remove(conversation)
            return Going(replace(base, kind="delete"))
        turn = self.random.choice(self.known[-12:])
        base = replace(base, conversation=self.service.homes[turn])
        if dice < 0.76 and (found := self.service.turns.get(turn)) is not None and not found.regenerates:
            named = found.asked.id
            return Going(replace(base, kind="regenerate", key=f"k{number}", message_id=named), streamed)
        kinds: tuple[Kind, ...] = ("look", "stream", "stream", "cancel")
        kind = self.random.choice(kinds)
        going = Going(replace(base, kind=kind, turn_id=turn))
        if going.call.kind == "stream" and (found := self.service.turns.get(turn)) and self.random.random() < 0.5:
            event = self.random.choice(found.events)
            going.place, going.call = (event.attempt, event.n), replace(going.call, after=event.id)
        return going

    def _take_effect(self, going: Going) -> None:
        call, service = going.call, self.service
        going.done, going.since = True, self.now
        if self.random.random() < 0.05 and call.kind != "stream":
            going.call = replace(call, outcome="unknown", http=503)
            return
        place = service.conversations.get(call.conversation)
        if call.kind == "create":
            going.call = replace(call, conversation=service.create())
            self.living.append(going.call.conversation)
        elif place is None or (call.turn_id and call.turn_id not in service.turns):
            going.call = replace(call, outcome="refused", http=404, code="not_found")
        elif call.kind == "read":
            going.call = replace(call, messages=tuple(place.messages))
        elif call.kind == "delete":
            service.delete(call.conversation)
        elif call.kind in ("send", "regenerate"):
            self._take_turn(going)
        else:
            turn = service.turns[call.turn_id]
            if call.kind == "cancel":
                service.cancel(turn)
            if call.kind == "stream":
                going.turn = turn
                if going.place[0] > turn.attempt:
                    going.turn = None
            else:
                going.call = replace(call, turn=turn.state())

    def _take_turn(self, going: Going) -> None:
        call, service = going.call, self.service
        place = service.conversations[call.conversation]
        turn, body = "", f"{call.kind} {call.conversation} {call.message_id} {call.content}"
        if call.key is not None:
            turn, before = service.keys.get(call.key, ("", body))
            if before != body:
                going.call = replace(call, outcome="refused", http=422, code="idempotency_mismatch")
                return
        if not turn and self.random.random() < 0.05:
            going.call = replace(call, outcome="refused", http=409, code="conversation_busy")
            return
        if not turn:
            anew = next((one for one in place.messages if one.id == call.message_id), None)
            turn = service.send(place, call.content, anew).id
            self.known.append(turn)
            if call.key is not None:
                service.keys[call.key] = (turn, body)
        going.turn = service.turns[turn]

    def _end(self, client: str, going: Going) -> None:
        call, turn = replace(going.call, ended=self.now), going.turn
        gone = turn is not None and turn.id not in self.service.turns
        if turn is not None and (call.kind == "stream" or going.streamed):
            events = turn.after(*going.place)
            leaves = self.random.random() < 0.2
            if not turn.status.ended and not leaves:
                return
            kept = events[: self.random.randrange(len(events) + 1)] if leaves else events
            call = replace(call, events=tuple(kept), outcome="unknown" if leaves or gone else "ok")
            if kept and kept[0].type == ACCEPTED:
                call = replace(call, times=(going.since, *[self.now] * (len(kept) - 1)))
        elif turn is not None:
            if not turn.status.ended and not gone:
                return
            call = replace(call, turn=turn.state(), user_message=turn.asked, reply=turn.reply)
            if gone:
                call = replace(going.call, ended=self.now, outcome="refused", http=404, code="not_found")
        if call.kind != "stream" and not call.events and call.outcome == "ok" and self.random.random() < 0.1:
            known = "" if call.kind == "create" else call.conversation
            call = replace(call, conversation=known, outcome="unknown", turn=None, messages=())
            call = replace(call, user_message=None, reply=None)
        self.history.add(call)
        del self.going[client]

    def finish(self) -> History:
        """Let all calls end and all turns come to their end; then look at everything."""
        while self.begun < self.number or self.going:
            self.step()
        while self.service.work():
            pass
        for conversation, turns in self.service.all_turns.items():
            self.history.add(self._stored(conversation, turns))
            for turn in turns:
                self.history.add(Provided(turn.id, tuple(turn.calls)))
        return self.history

    def _stored(self, conversation: str, turns: list[Turn]) -> Stored:
        place = self.service.conversations.get(conversation)
        if place is None:
            return Stored(conversation)
        states = tuple(turn.state() for turn in turns)
        return Stored(conversation, tuple(place.messages), states, dict(place.superseded))


def clean_history(seed: int, number: int, deletes: bool = True) -> History:
    """`number` operations of overlapping clients, each as the sequential service explains it."""
    random = Random(seed)
    return Clients(Service(random), random, number, deletes).finish()
