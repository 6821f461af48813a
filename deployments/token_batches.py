"""Which texts share a forward pass: those of like length, so that little is padding."""

from collections.abc import Iterator, Sequence


def by_length(ids: Sequence[Sequence[int]], padded_tokens: int) -> Iterator[list[int]]:
    """Places in `ids` (of each text's tokens), the longest first; each pass has up to `padded_tokens` with padding."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    while order:
        take = max(1, padded_tokens // len(ids[order[0]]))
        together, order = order[:take], order[take:]
        yield together
