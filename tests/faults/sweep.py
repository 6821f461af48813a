"""What was known before something began: the real-time order of a history, in n log n."""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import TypeVar

Known = TypeVar("Known")
Asking = TypeVar("Asking")


def largest_before(
    known: Iterable[tuple[float, int, Known]], asking: Iterable[tuple[float, Asking]]
) -> Iterator[tuple[Asking, Known]]:
    """For each of `asking` (when it began), the one of `known` (since when, how large) that is the largest of those
    known strictly before; nothing where there is none. What touches in time is concurrent."""
    waiting = iter(sorted(known, key=itemgetter(0)))
    following = next(waiting, None)
    largest: tuple[float, int, Known] | None = None
    for began, one in sorted(asking, key=itemgetter(0)):
        while following is not None and following[0] < began:
            if largest is None or following[1] > largest[1]:
                largest = following
            following = next(waiting, None)
        if largest is not None:
            yield one, largest[2]
