"""Where generations run: a local model's in its own replicas, whose text then takes no way round.

With none of them (there is none yet, all have died, the model is scaled to zero) HostedLLM runs them, which waits for a
replica, tries again and knows what else may answer.
"""

import asyncio
import logging
from collections.abc import Mapping

from ray.serve.handle import DeploymentHandle

from deployments.handles import ask, plain
from deployments.presence import Replicas, replicas_of
from domain.errors import Unavailable
from domain.generation import GenerationRequest, Outcome

log = logging.getLogger("brain.handles")
GRACE = 130.0
"""Seconds from when the last replica has gone until calls count as lost that nobody has answered.

Longer than a replica which leaves goes on with what it has (`deployments.local_llm.DRAIN`): it is gone for the routers
from the beginning. Calls of a replica that dies fail at once. So this is for a call that none of them got, and that no
new one takes from Serve's queue.
"""
CANCELLING = 5.0  # seconds


class Place:
    """One local model's replicas (`serve_app.local_replica`). A conversation's calls meet at one that is not full."""

    def __init__(self, handle: DeploymentHandle, replicas: Replicas | None = None, grace: float = GRACE) -> None:
        self._handle = plain(handle)
        self._replicas = replicas or replicas_of(handle.deployment_name)
        self._grace, self._loop = grace, asyncio.get_running_loop()
        self._lost = self._loop.create_future()  # of all calls that wait now
        self._replicas.on_gone(self._perhaps_gone)

    @property
    def open(self) -> bool:
        """Whether a replica runs, as far as is known here."""
        return self._replicas.running > 0

    async def generate(self, request: GenerationRequest) -> Outcome:
        """As `LanguageModel`; raises `Unavailable` too once there is no replica any more that could still answer."""
        handle = self._handle.options(session_id=f"{request.tenant}:{request.session or request.turn_id}")
        answer = asyncio.ensure_future(ask(lambda: handle.generate.remote(request)))
        try:
            await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Unavailable("the model's last replica is gone")
            return answer.result()  # type: ignore[no-any-return]
        finally:
            answer.cancel()

    async def cancel(self, request: GenerationRequest) -> None:
        """At all replicas: which of them has it may have changed."""
        try:
            await self._handle.broadcast("cancel", request).results_async(return_exceptions=True)
        except Exception as error:  # there may be none any more, and whoever wants the end asks again
            log.warning("a cancel did not reach all replicas of %s: %r", self._handle.deployment_name, error)

    def _perhaps_gone(self) -> None:
        """In the router's thread."""
        self._loop.call_soon_threadsafe(self._loop.call_later, self._grace, self._gone)

    def _gone(self) -> None:
        if not self.open:
            self._lost.set_result(None)
            self._lost = self._loop.create_future()


class HandleLanguageModel:
    """Generations in other replicas (`domain.ports.LanguageModel`); a turn's calls meet at one replica.

    Those of a model in `local` run where it runs, while a replica of it lives.
    """

    def __init__(self, handle: DeploymentHandle, local: Mapping[str, Place] | None = None) -> None:
        self._handle, self._local = plain(handle), local or {}

    async def generate(self, request: GenerationRequest) -> Outcome:
        for place in self._places(request):
            outcome = await place.generate(request)
            if not request.join or outcome.ending != "elsewhere":
                return outcome
        handle = self._handle.options(session_id=request.turn_id)
        found: Outcome = await ask(lambda: handle.generate.remote(request))
        return found

    async def cancel(self, request: GenerationRequest) -> None:
        handle = self._handle.options(session_id=request.turn_id)
        hosted = ask(lambda: handle.cancel.remote(request))
        try:
            async with asyncio.timeout(CANCELLING):
                await asyncio.gather(hosted, *(place.cancel(request) for place in self._places(request)))
        except TimeoutError:
            raise Unavailable("not everybody has heard of the cancel") from None

    def _places(self, request: GenerationRequest) -> list[Place]:
        """Where the generation may run, or would begin. The sides of a turn share its claim: they share a process."""
        if request.side is not None:
            return []
        models = (request.model, *(request.chain if request.join else ()))
        if request.join and not request.model:  # nothing is known of it
            models = tuple(self._local)
        return [place for model in models if (place := self._local.get(model)) is not None and place.open]


def places(local: Mapping[str, DeploymentHandle]) -> dict[str, Place]:
    """By model id."""
    return {model: Place(handle) for model, handle in local.items()}
