"""How many replicas a deployment has, as this process's handles know it.

A handle waits for a replica where there is none, and cannot be asked. Its router is told of every change, and tells it
here: not to a part of its own module, which Serve copies into each process with the router's class.
"""

from collections.abc import Callable


class Replicas:
    """How many replicas of one deployment run. Routers tell it from a thread of their own."""

    def __init__(self) -> None:
        self.running = 0
        self._listeners: list[Callable[[], None]] = []

    def on_gone(self, listener: Callable[[], None]) -> None:
        """`listener` is called whenever the last replica has gone, in the router's thread."""
        self._listeners.append(listener)

    def tell(self, running: int) -> None:
        before, self.running = self.running, running
        if before and not running:
            for listener in self._listeners:
                listener()


_known: dict[str, Replicas] = {}


def replicas_of(deployment: str) -> Replicas:
    """Of the deployment of this name, in this process's application."""
    return _known.setdefault(deployment, Replicas())
