"""What a prompt is told of other conversations."""

from collections.abc import Sequence
from typing import Protocol

from domain.context import Exchange
from domain.conversation import ConversationKey
from domain.embedding import Embedding


class Memory(Protocol):
    """What was said at other times."""

    async def similar(
        self, key: ConversationKey, user: str, text: str, embedding: Embedding | None, limit: int
    ) -> Sequence[Exchange]:
        """Exchanges of this tenant's `user` near `text`, of other conversations; the nearest first. `embedding`: the
        text's, where it is at hand.

        Whatever is raised or takes too long costs the turn its memory, never more.
        """
        ...
