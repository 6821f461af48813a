"""What is asked of every system: how many clients, streamed or not, how fast the provider's tokens come."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """`clients` in a closed loop, each reply `tokens` long, `gap_ms` between the provider's tokens."""

    clients: int
    streamed: bool
    tokens: int = 64
    gap_ms: int = 0

    @property
    def model(self) -> str:
        """The mock provider's model name that behaves like this."""
        return f"mock,n={self.tokens},ttft=0,itl={self.gap_ms}"

    @property
    def name(self) -> str:
        """As in the table's first column."""
        pace = f", {self.gap_ms} ms between tokens" if self.gap_ms else ""
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{clients}, {'streamed' if self.streamed else 'whole replies'}{pace}"

    @property
    def offered(self) -> float | None:
        """Tokens a second that the provider would send to all clients together; None when it does not wait."""
        return self.clients * 1000 / self.gap_ms if self.gap_ms else None


def standard(clients: Iterable[int], tokens: int, gap_ms: int) -> list[Workload]:
    """Whole replies and streams for each number of clients, then paced streams for the largest number."""
    counts = sorted(set(clients))
    loads = [Workload(count, streamed, tokens) for streamed in (False, True) for count in counts]
    return [*loads, Workload(counts[-1], True, tokens, gap_ms)] if gap_ms else loads
