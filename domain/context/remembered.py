"""A message as the hot context holds it."""

from dataclasses import dataclass, field

from domain.context.tokens import ESTIMATE, MESSAGE_OVERHEAD, TokenCounter, estimate_tokens
from domain.message import Role


@dataclass(frozen=True, slots=True)
class Remembered:
    """One message of the hot context. `order` is the turn's place: history is told in order of turns.

    `tokens`: an estimate, with what the chat's format adds. `counts` are those of tokenizers, by their counters' names.
    """

    order: int
    seq: int
    role: Role
    content: str
    tokens: int
    counts: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, order: int, seq: int, role: Role, content: str) -> "Remembered":
        return cls(order, seq, role, content, estimate_tokens(content) + MESSAGE_OVERHEAD)

    def size(self, counter: TokenCounter) -> int:
        """Tokens by `counter`, which is asked once."""
        if counter is ESTIMATE:
            return self.tokens
        found = self.counts.get(counter.name)
        if found is None:
            found = self.counts[counter.name] = counter.count(self.content) + MESSAGE_OVERHEAD
        return found
