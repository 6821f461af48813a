"""Leaves a model alone that fails, and lets one call try again after a while; shared between replicas."""

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Protocol

from deployments.policies import Call, CircuitOpen, Policy, http_status, name_of
from deployments.providers import Piece, ProviderFailure
from domain.circuit import Circuit, State
from domain.model import Route

MOST_CIRCUITS = 4096  # ids under a pattern have no bound of their own
ASK_AGAIN = 0.5  # seconds until another replica's probe is asked about again


class SharedBreakers(Protocol):
    """What replicas tell each other of their breakers. Nothing here waits for the network but `probe`.

    `open`: monotonic seconds until which each model rests, by `provider/model`; `read_at`: when that was asked.
    What this process told before `read_at` is part of it.
    """

    open: Mapping[str, float]
    read_at: float

    def opened(self, name: str, seconds: float) -> None: ...

    def closed(self, name: str) -> None: ...

    async def probe(self, name: str, seconds: float) -> bool:
        """Whether this process may be the one that tries, for so long at most; True where nobody can say."""
        ...

    def probed(self, name: str) -> None:
        """The probe has ended."""
        ...


class Circuits:
    """The breakers of all models, by `provider/model`. `on_open` hears of each that opens here."""

    def __init__(self, shared: SharedBreakers | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.shared, self._monotonic = shared, monotonic
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()
        self._entries: dict[str, tuple[str, str]] = {}
        self.on_open: Callable[[str], None] = lambda name: None

    def of(self, route: Route) -> Circuit:
        name = name_of(route)
        circuit = self._circuits.get(name)
        if circuit is None or circuit.settings != route.provider.breaker:
            circuit = self._circuits[name] = Circuit(route.provider.breaker)
            self._entries[name] = (route.provider.name, route.model.id)
            if len(self._circuits) > MOST_CIRCUITS:
                del self._entries[self._circuits.popitem(last=False)[0]]
        self._circuits.move_to_end(name)
        self._hear(name, circuit)
        return circuit

    def state(self, route: Route) -> State:
        return self.of(route).state(self._monotonic())

    def states(self) -> dict[tuple[str, str], State]:
        """By provider and entry of the catalog: the worst of the ids that a pattern allows."""
        now, order = self._monotonic(), (State.CLOSED, State.HALF_OPEN, State.OPEN)
        found: dict[tuple[str, str], State] = {}
        for name, circuit in self._heard():
            entry = self._entries[name]
            found[entry] = max(found.get(entry, State.CLOSED), circuit.state(now), key=order.index)
        return found

    def refuses(self, route: Route) -> bool:
        """Whether a call would be refused now, as far as this process knows."""
        circuit, now = self.of(route), self._monotonic()
        state = circuit.state(now)
        return state is State.OPEN or (state is State.HALF_OPEN and (circuit.probing or now < circuit.ask_again))

    def unhealthy(self) -> frozenset[str]:
        """`provider/model` of every model whose breaker is open here, or as other replicas told."""
        now = self._monotonic()
        names = {name for name, circuit in self._heard() if circuit.state(now) is State.OPEN}
        if self.shared is not None:
            names |= {name for name, until in self.shared.open.items() if until > now and name not in self._circuits}
        return frozenset(names)

    async def enter(self, route: Route) -> bool:
        """Whether the call is a probe; raises `CircuitOpen` where none may be made."""
        circuit, name = self.of(route), name_of(route)
        if circuit.state(self._monotonic()) is State.CLOSED:
            return False
        if self.refuses(route):
            raise _refusal(route)
        circuit.probing = True
        limits = route.provider.timeouts
        try:
            allowed = self.shared is None or await self.shared.probe(name, limits.connect + limits.first_token + 1)
        except BaseException:
            self.left(route)  # the lease may have been ours already
            raise
        if not allowed:
            circuit.probing, circuit.ask_again = False, self._monotonic() + ASK_AGAIN
            raise _refusal(route)
        return True

    def answered(self, route: Route, probe: bool) -> None:
        circuit, now = self.of(route), self._monotonic()
        if probe and circuit.state(now) is not State.CLOSED:
            circuit.close(now)
            if self.shared is not None:
                self.shared.closed(name_of(route))
        circuit.succeeded(now)

    def failed(self, route: Route, probe: bool) -> None:
        circuit, now = self.of(route), self._monotonic()
        if probe:
            circuit.open(now, now + circuit.settings.open)
        elif not circuit.failed(now):
            return
        if self.shared is not None:
            self.shared.opened(name_of(route), circuit.settings.open)
        self.on_open(name_of(route))

    def left(self, route: Route) -> None:
        """A probe has ended, however it did."""
        self.of(route).probing = False
        if self.shared is not None:
            self.shared.probed(name_of(route))

    def _heard(self) -> Iterator[tuple[str, Circuit]]:
        for name, circuit in self._circuits.items():
            self._hear(name, circuit)
            yield name, circuit

    def _hear(self, name: str, circuit: Circuit) -> None:
        """Take over what other replicas told since this one's last change."""
        shared = self.shared
        if shared is None or circuit.probing or shared.read_at <= circuit.changed:
            return
        until = shared.open.get(name)
        if until is None:
            circuit.close(shared.read_at)
        elif circuit.state(shared.read_at) is State.CLOSED or until > circuit.until:
            circuit.open(shared.read_at, until)


class Breaking:
    """Refuses calls of models whose breaker is open, and tells the breaker how the others went."""

    def __init__(self, inner: Policy, circuits: Circuits) -> None:
        self._inner, self._circuits = inner, circuits

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        route, circuits = call.route, self._circuits
        probe = await circuits.enter(route)
        trying = probe
        try:
            async with contextlib.aclosing(self._inner.stream(call)) as pieces:
                async for piece in pieces:
                    if trying:  # it answers: nobody needs to wait for the end
                        circuits.answered(route, True)
                        circuits.left(route)
                        trying = False
                    yield piece
            circuits.answered(route, trying)
        except ProviderFailure as failure:
            answered = http_status(failure) is not None
            if is_ill(failure) or (trying and not answered and not failure.refused):
                circuits.failed(route, trying)  # a probe that nobody answered has shown no health
            elif answered:
                circuits.answered(route, trying)
            raise
        finally:
            if trying:
                circuits.left(route)


def is_ill(failure: ProviderFailure) -> bool:
    """Whether a failure speaks against the provider's health; a refusal (4xx) does not."""
    status = http_status(failure)
    return (failure.retryable or failure.timed_out) and (status is None or status >= 500)


def _refusal(route: Route) -> CircuitOpen:
    return CircuitOpen(f"model {route.id!r} of provider {route.provider.name!r} is left alone: its breaker is open")
