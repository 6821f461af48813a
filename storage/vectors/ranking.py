"""What every backend owes a search: whole ties, in the port's order, and vectors of the right length."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from domain.embedding import Embedding
from domain.errors import SpaceMismatch
from domain.vectors import Found, Space

DIGITS = 6  # of a score: what lies below is rounding, and differs between equal vectors
SPARE = 8  # asked for beyond the limit, to see whether ones as near were cut off
MOST = 10_000  # records that one search reads; also the most that Pinecone answers
LIMIT = 1_000


async def nearest(limit: int, ask: Callable[[int], Awaitable[Sequence[Found]]]) -> list[Found]:
    """The best `limit` of `ask(n)`, which answers the n nearest in any order of equally near ones."""
    wanted = limit + SPARE
    while True:
        found = sorted(await ask(wanted), key=lambda one: (-one.score, one.id))
        if len(found) < wanted or wanted == MOST or found[-1].score < found[limit - 1].score:
            return found[:limit]
        wanted = min(4 * wanted, MOST)


def check_question(space: Space, vector: Embedding, limit: int) -> None:
    """Raise what a search raises before it is made."""
    check(space, (vector,))
    if not 1 <= limit <= LIMIT:
        raise ValueError(f"limit must be 1 to {LIMIT}, not {limit}")


def found(id: str, conversation: str, similarity: float) -> Found:
    """`similarity` as computed."""
    return Found(id, conversation, min(max(round(similarity, DIGITS), -1.0), 1.0))


def check(space: Space, vectors: Iterable[Embedding]) -> None:
    """Raise `SpaceMismatch` where a vector cannot be of `space`."""
    for vector in vectors:
        if len(vector) != space.dimensions:
            raise SpaceMismatch(str(space), f"another embedder ({len(vector)} dimensions)")
