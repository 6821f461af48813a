"""A host whose conversation is held by the real actor; its model answers at once, and there is no journal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from actors import accepting, mailbox
from actors.conversation import ConversationActor
from actors.parts import HostLimits, Parts
from domain.errors import Fenced, JournalUnavailable, Unavailable
from domain.generation import GenerationRequest, Outcome
from domain.model import SCRIPTED, parse_catalog
from domain.ports import Progress, Understanding
from tests.faults.hosts import Host


class NoJournal:
    """Redis is away: turns still commit."""

    async def append(
        self,
        tenant: str,
        turn_id: str,
        attempt: int,
        events: Sequence[tuple[str, dict[str, Any]]],
        after: int = 0,
        epoch: int = 0,
    ) -> int | None:
        raise JournalUnavailable()

    async def claim(self, request: GenerationRequest, writer: str) -> bool:
        raise JournalUnavailable()

    async def write(self, request: GenerationRequest, writer: str, deltas: Sequence[str], after: int) -> int | None:
        raise JournalUnavailable()

    async def beat(self, names: Sequence[GenerationRequest], writer: str) -> None:
        raise JournalUnavailable()

    async def seal(self, request: GenerationRequest, writer: str, outcome: Outcome) -> None:
        raise JournalUnavailable()

    async def progress(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> Progress:
        raise JournalUnavailable()

    async def supersede(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> None:
        raise JournalUnavailable()


class AnswersAtOnce:
    """A generation that every host finds at its end, whoever started it."""

    async def generate(self, request: GenerationRequest) -> Outcome:
        return Outcome("completed", text="an answer", model=SCRIPTED)

    async def cancel(self, request: GenerationRequest) -> None:
        return None


class NoClassifier:
    async def classify(self, text: str, tenant: str = "") -> Understanding:
        raise Unavailable("there is no classifier")


@dataclass(slots=True)
class ActorHost(Host):
    """A fenced actor has discarded itself: the client's message comes again, by its key, to a new one."""

    actor: ConversationActor | None = None
    quiet: ClassVar[int] = 60

    async def serve(self, text: str, times: int = 3) -> None:
        send = replace(self.send(text), model=SCRIPTED)
        for _ in range(times):
            if self.actor is None:
                self.actor = ConversationActor(self.key, self._parts(), self._discard)
            try:
                found = await self.actor.send(send)
            except Fenced:
                continue
            assert found.user_message is not None
            self.acknowledge(text, (found.turn.id, found.user_message.seq))
            return
        raise Fenced("its client gives up")

    def _parts(self) -> Parts:
        catalog = parse_catalog({})
        return Parts(self.id, self.store, NoJournal(), AnswersAtOnce(), NoClassifier(), catalog, HostLimits())

    def _discard(self, actor: ConversationActor) -> None:
        if self.actor is actor:
            self.actor = None


def without_pauses(patch: Any) -> None:
    """Let actors repeat a call at once, where they wait for a database to come back. `patch`: pytest's monkeypatch."""
    patch.setattr(mailbox, "AGAIN", 0)
    patch.setattr(accepting, "PATIENCE", (0, 0, 0))
