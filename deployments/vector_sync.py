"""Makes the vectors of messages equal to what is stored of them, whatever others write and delete meanwhile.

What is stored is read before a write and again after it, until it is what was written: so of two writers the later one
corrects itself, and a message that was deleted in between is taken out again by whoever put it in.
"""

from collections.abc import Collection, Mapping, Sequence

from domain.embedding import Embedding
from domain.errors import Unavailable
from domain.indexing import OutboxEvent, SpaceEmbedder, StoredText, StoredTexts
from domain.vectors import Space, VectorRecord, VectorStore, Where

TOGETHER = 256  # texts in one call of the embedder
ROUNDS = 6  # of reading again, until the rest is left for later
MOST = 1_000  # vectors of one conversation that are looked through for ones whose messages are gone

Wanted = Mapping[str, Collection[str]]
"""Messages by tenant."""


class VectorSync:
    """`embedded`, `written` and `removed` count messages. `touched`: tenants with writes, and how many."""

    def __init__(self, texts: StoredTexts, embedder: SpaceEmbedder, space: Space, store: VectorStore) -> None:
        self._texts, self._embedder, self._space, self._store = texts, embedder, space, store
        self.embedded = self.written = self.removed = 0
        self.touched: dict[str, int] = {}

    async def look(self, tenant: str, events: Sequence[OutboxEvent]) -> set[str]:
        """The messages that these events tell of; conversations and tenants that are gone are removed here."""
        if any(event.topic == "tenant.deleted" for event in events):
            await self._store.delete_tenant(tenant)
            self._touch(tenant)
            return set()
        ids = {event.payload["message_id"] for event in events if event.payload.get("message_id")}
        turns = [event.payload["turn_id"] for event in events if event.topic.startswith("turn.")]
        if turns:
            ids |= set(await self._texts.of_turns(tenant, turns))
        for conversation in dict.fromkeys(filter(None, map(_whole, events))):
            ids |= await self._all_of(tenant, conversation)
        return ids

    async def settle(self, wanted: Wanted) -> None:
        """Write, correct and remove, until the vectors of these messages are those of what is stored."""
        kept = {tenant: await self._kept(tenant, ids) for tenant, ids in wanted.items() if ids}
        for _ in range(ROUNDS):
            texts = {tenant: await self._texts.read(tenant, list(wanted[tenant])) for tenant in kept}
            changed = {
                tenant: [text for text in texts[tenant].values() if _worth_it(text) and not _same(text, known)]
                for tenant, known in kept.items()
            }
            gone = {
                tenant: [id for id in known if id not in texts[tenant] or not _worth_it(texts[tenant][id])]
                for tenant, known in kept.items()
            }
            if not any(changed.values()) and not any(gone.values()):
                return
            vectors = await self._vectors(kept, changed)
            for tenant, known in kept.items():
                await self._write(tenant, known, [_record(text, vectors[text.id]) for text in changed[tenant]])
                await self._remove(tenant, known, gone[tenant])
        raise Unavailable("messages change faster than they are indexed")

    async def reachable(self) -> bool:
        """Whether the embedder and the store answer at all."""
        try:
            await self._embedder.embed_for(self._space.embedder, ["."])
            await self._store.count(".")
        except Exception:
            return False
        return True

    async def _kept(self, tenant: str, ids: Collection[str]) -> dict[str, VectorRecord]:
        return {record.id: record for record in await self._store.fetch(tenant, list(ids))}

    async def _all_of(self, tenant: str, conversation: str) -> set[str]:
        """Its messages, and whatever else its vectors are of."""
        stored = await self._texts.of_conversation(tenant, conversation)
        if stored is None:
            await self._store.delete_conversation(tenant, conversation)
            self._touch(tenant)
            return set()
        anything = [1.0, *[0.0] * (self._space.dimensions - 1)]
        found = await self._store.search(tenant, anything, MOST, Where(conversation=conversation))
        return {*stored, *(one.id for one in found)}

    async def _vectors(
        self, kept: Mapping[str, Mapping[str, VectorRecord]], changed: Mapping[str, Sequence[StoredText]]
    ) -> dict[str, Embedding]:
        """A vector for each text: the one that is kept, for a message's text never changes, or a new one."""
        vectors: dict[str, Embedding] = {}
        new: list[StoredText] = []
        for tenant, texts in changed.items():
            for text in texts:
                if (record := kept[tenant].get(text.id)) is not None:
                    vectors[text.id] = record.vector
                else:
                    new.append(text)
        for start in range(0, len(new), TOGETHER):
            part = new[start : start + TOGETHER]
            made = await self._embedder.embed_for(self._space.embedder, [text.content for text in part])
            vectors |= {text.id: vector for text, vector in zip(part, made, strict=True)}
            self.embedded += len(part)
        return vectors

    async def _write(self, tenant: str, known: dict[str, VectorRecord], records: Sequence[VectorRecord]) -> None:
        if records:
            await self._store.upsert(tenant, records)
            known |= {record.id: record for record in records}
            self.written += len(records)
            self._touch(tenant)

    async def _remove(self, tenant: str, known: dict[str, VectorRecord], ids: Sequence[str]) -> None:
        if ids:
            await self._store.delete(tenant, ids)
            for id in ids:
                del known[id]
            self.removed += len(ids)
            self._touch(tenant)

    def _touch(self, tenant: str) -> None:
        self.touched[tenant] = self.touched.get(tenant, 0) + 1


def _whole(event: OutboxEvent) -> str | None:
    """The conversation that has to be looked at as a whole: its user may be another one, or it may be gone, or whoever
    had this event before may have died with vectors in it of which the event does not tell."""
    again = event.delivery > 1 and event.topic.startswith("turn.")
    if again or event.topic in ("conversation.deleted", "conversation.updated"):
        conversation: str = event.payload["conversation_id"]
        return conversation
    return None


def _worth_it(text: StoredText) -> bool:
    return text.role != "system" and bool(text.content.strip())


def _same(text: StoredText, known: Mapping[str, VectorRecord]) -> bool:
    record = known.get(text.id)
    return record is not None and (record.user, record.intent, record.role) == (text.user, text.intent, text.role)


def _record(text: StoredText, vector: Embedding) -> VectorRecord:
    return VectorRecord(text.id, text.conversation, vector, text.role, text.at, text.user, text.intent)
