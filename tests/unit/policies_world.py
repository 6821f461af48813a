"""What the policies' tests share: a clock that only sleeping moves, and a wire that does as the test says."""

import asyncio
import heapq
from collections.abc import Callable

from deployments.counting import Counting
from deployments.policies import Call, Record
from deployments.policies.breaker import SharedBreakers
from deployments.policies.composed import Composed
from deployments.providers import Piece, ProviderFailure
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Catalog, Route, parse_catalog

END = Piece("", "stop", Usage(prompt_tokens=6, completion_tokens=2, total_tokens=8))
DOWN = ProviderFailure("it is down", retryable=True, status=503)


class Clock:
    """Seconds that pass when the test says so, or when everybody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, []
        self._sleepers: list[tuple[float, int, asyncio.Future]] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, len(self.slept), future))
        await future

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_to_next(self) -> bool:
        """Wake whoever wakes next; False where nobody sleeps."""
        await self.settle()
        self._forget_cancelled()
        if not self._sleepers:
            return False
        at, _, future = heapq.heappop(self._sleepers)
        self.now = max(self.now, at)
        future.set_result(None)
        await self.settle()
        return True

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await self.settle()
        self._forget_cancelled()
        while self._sleepers and self._sleepers[0][0] <= end:
            await self.pass_to_next()
            self._forget_cancelled()
        self.now = end

    def _forget_cancelled(self) -> None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)

    async def until_done(self, *tasks: asyncio.Task) -> None:
        await self.settle()
        while not all(task.done() for task in tasks):
            assert await self.pass_to_next(), "nothing moves any more"


class Gate:
    """A place in an answer where it waits for the test."""

    def __init__(self) -> None:
        self.open = asyncio.Event()


class Wire:
    """Each call does the next of `plans`, the last for ever: pieces to give, failures to raise, gates to wait at."""

    def __init__(self, *plans) -> None:
        self.plans, self.calls, self.closed = list(plans), [], 0
        self.resumed, self.abandoned = [], []
        self.active = self.most = 0

    async def stream(self, route, request):
        self.calls.append((route, request))
        plan = self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]
        async for piece in self._play(plan):
            yield piece

    async def _play(self, plan):
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            for step in plan:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Gate):
                    await step.open.wait()
                elif isinstance(step, Callable):
                    await step()
                else:
                    yield Piece(step) if isinstance(step, str) else step
        finally:
            self.active -= 1
            self.closed += 1

    async def close(self) -> None:
        pass


class Background(Wire):
    """One whose lost answers can be taken up again."""

    def __init__(self, *plans, resumes) -> None:
        super().__init__(*plans)
        self._resumes = list(resumes)

    async def resume(self, route, request, ref, cursor):
        self.resumed.append((ref, cursor))
        async for piece in self._play(self._resumes.pop(0)):
            yield piece

    async def abandon(self, route, ref):
        self.abandoned.append(ref)


def catalog_of(**fields) -> Catalog:
    """One provider `p` with the models `m` and `other`; `model` holds fields of `m`."""
    model = {"id": "m", **fields.pop("model", {})}
    provider = {"name": "p", "base_url": "http://p", "models": [model, {"id": "other"}], **fields}
    return parse_catalog({"providers": [provider]})


def route_of(model: str = "m", /, **fields) -> Route:
    route = catalog_of(**fields).find(model)
    assert route is not None
    return route


class World:
    """The composed policies over one wire."""

    def __init__(self, wire: Wire, shared: SharedBreakers | None = None, **fields) -> None:
        self.clock, self.wire, self.catalog = Clock(), wire, catalog_of(**fields)
        self.counting = Counting()
        self.policies = Composed({"openai": wire}, self.counting, shared, self.clock.sleep, self.clock.monotonic)

    def call(self, tenant="t", model="m", content="one two", trace=None, alternatives=False, **fields) -> Call:
        request = GenerationRequest(tenant, "turn", 1, model, [{"role": "user", "content": content}], **fields)
        route = self.catalog.find(model)
        assert route is not None
        return Call(route, request, [] if trace is None else trace, alternatives=alternatives)

    def ask(self, **fields) -> "Asked":
        return Asked(self, self.call(**fields))


class Asked:
    """A call under way: `text` so far, `trace`, and how it ended."""

    def __init__(self, world: World, call: Call) -> None:
        self.call, self.text, self.pieces = call, "", []
        self.trace: list[Record] = call.trace
        self._stream = world.policies.stream(call)
        self.task = asyncio.create_task(self._read())
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # a test may not ask for it

    async def _read(self) -> str:
        try:
            async for piece in self._stream:
                self.pieces.append(piece)
                self.text += piece.text
            return self.text
        finally:
            await self._stream.aclose()

    @property
    def failure(self) -> BaseException | None:
        return self.task.exception() if self.task.done() else None
