"""Which replicas a deployment has, by id, as the router of this process's handle tells it (see `presence`).

Serve tells a replica nothing when it begins to stop it. It tells routers, and a replica can have a handle to its own
deployment. Processes of two versions share routers during a rollout, so what stands here is only added to.
"""

from collections.abc import Callable, Iterable


class Members:
    """Those of one deployment that run. Routers tell it from a thread of their own."""

    def __init__(self) -> None:
        self.ids: frozenset[str] = frozenset()
        self._watched: dict[str, Callable[[bool], None]] = {}

    def watch(self, replica: str, listener: Callable[[bool], None]) -> None:
        """`listener` is told whether this replica runs whenever that has changed, in the router's thread."""
        self._watched[replica] = listener

    def tell(self, ids: Iterable[str]) -> None:
        before, self.ids = self.ids, frozenset(ids)
        for replica in before ^ self.ids:
            if replica in self._watched:
                self._watched[replica](replica in self.ids)


_known: dict[str, Members] = {}


def members_of(deployment: str) -> Members:
    """Of the deployment of this name, in this process's application."""
    return _known.setdefault(deployment, Members())
