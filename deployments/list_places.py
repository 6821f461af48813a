"""Places for lists of texts, each of which is work for seconds: few at once, and fewer of one tenant."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import Overloaded

AT_ONCE, OF_ONE = 8, 2


class ListPlaces:
    """`at_once`: lists under way in this replica; `of_one`: of one tenant."""

    def __init__(self, at_once: int = AT_ONCE, of_one: int = OF_ONE) -> None:
        self._at_once, self._of_one = at_once, of_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def of(self, tenant: str) -> Iterator[None]:
        """A place until the end. Raises `Overloaded`, with what there is too much of."""
        if self._taken[tenant] >= self._of_one:
            raise Overloaded(
                f"{self._of_one} lists of texts of this tenant are under way: send the next one after them"
            )
        if self._taken.total() >= self._at_once:
            raise Overloaded("too many lists of texts are under way")
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
