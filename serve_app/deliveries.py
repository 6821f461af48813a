"""What the relay does for webhooks and channels: makes deliveries of the outbox, sends them, forgets old ones."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry, Gauge

from adapters.allow_list import AllowList
from adapters.channels.receiving import Receiving
from adapters.channels.webhook import WebhookChannel
from adapters.outgoing import Outgoing
from adapters.posting import Posting
from adapters.transport import OutTransport
from deployments.delivering import FanningOut, Figures, Sending
from domain.channels import ChannelPort, ChannelStore, Kind
from domain.deliveries import HELD
from domain.errors import Unavailable
from domain.indexing import Lag
from domain.ports import Hosts
from serve_app.ingress.shapes import message_json
from storage.channels import PostgresChannels
from storage.fan_out import CONSUMER, PostgresFanOut
from storage.lanes import PostgresLanes
from storage.outbox import PostgresOutbox
from storage.postgres import Pool
from storage.sealing import MasterKeys

log = logging.getLogger("brain.deliveries")

WAIT, LIMIT = 10.0, 256 * 1024  # seconds and bytes of an answer: one that is larger counts as none
DAYS = 30.0  # for which deliveries are kept that wait no more
EVERY = 300.0  # seconds between looks at what is too old
LOOK = 5.0  # seconds between looks at how many wait, and at which channels there are
FIRST, LONGEST = 0.1, 5.0  # seconds between tries to begin


class Deliveries:
    """A `Worker` of the relay. `more`: ports of other kinds of channels than webhooks. Each replica of the relay tells
    its own of all channels, so where one alone may hold a connection the port sees to that."""

    def __init__(
        self,
        pool: Pool,
        keys: MasterKeys,
        allowed: AllowList,
        hosts: Hosts,
        more: Sequence[ChannelPort] = (),
        held: float = HELD,
        look: float = LOOK,
    ) -> None:
        self._outgoing = Outgoing(allowed, WAIT, LIMIT)
        posting = Posting(self._outgoing)
        self.ports: dict[Kind, ChannelPort] = {"webhook": WebhookChannel(posting)}
        self.ports |= {port.kind: port for port in more}
        self._store: ChannelStore = PostgresChannels(pool, keys)
        self._receiving = Receiving(self._store, hosts, self.ports)
        for port in self.ports.values():
            port.on_receive(self._receiving.receive)
        self._lanes = PostgresLanes(pool, keys, held=held)
        self._outbox = PostgresOutbox(pool, CONSUMER)
        self.figures, self._lag, self._waiting = Figures(), (0, 0.0), Lag(0, 0.0, 0)
        self._sending = Sending(self._lanes, OutTransport(posting, self.ports, message_json), self.figures)
        self._fanning = FanningOut(PostgresFanOut(pool), self.figures, self._sending.wake, self._began)
        self._look_every = look
        self._working, self._trouble = False, "it has not begun yet"
        self._task: asyncio.Task[None] | None = None

    def show(self, registry: CollectorRegistry) -> None:
        for name, text, value in (
            ("brain_deliveries_working", "0 where this replica cannot deliver", lambda: float(self._working)),
            ("brain_deliveries_lanes_due", "Subscribers' conversations with something due", lambda: self._lag[0]),
            ("brain_deliveries_lag_seconds", "How long the first of these has been due", lambda: self._lag[1]),
            ("brain_deliveries_waiting_rows", "Events no delivery was made of yet", lambda: self._waiting.waiting),
            ("brain_deliveries_waiting_seconds", "Age of the oldest of these", lambda: self._waiting.seconds),
            ("brain_deliveries_set_aside", "Events that no delivery can be made of", lambda: self._waiting.set_aside),
            ("brain_deliveries_events", "Rows of the outbox done since the start", lambda: self.figures.rows),
            ("brain_deliveries_made", "Deliveries made of them", lambda: self.figures.deliveries),
            ("brain_deliveries_attempts", "Attempts since the start", lambda: self.figures.attempts),
            ("brain_deliveries_delivered", "Deliveries taken since the start", lambda: self.figures.delivered),
            ("brain_deliveries_failed", "Deliveries given up since the start", lambda: self.figures.failed),
        ):
            Gauge(name, text, registry=registry).set_function(value)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="deliveries")

    def check(self) -> None:
        """Raises `Unavailable` where nothing is delivered, and says why."""
        if not self._working:
            raise Unavailable(f"nothing is delivered to webhooks and channels: {self._trouble}")

    @property
    def ended(self) -> bool:
        """Whether its work is over, though nobody closed it: a new process has to do it."""
        return self._task is not None and self._task.done()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._work()
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"
            log.exception("deliveries have ended")
        else:
            self._trouble = "it has ended"
        finally:
            self._working = False

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            for worker in (self._sending, self._fanning):
                worker.start()
                stack.push_async_callback(worker.close)
            stack.push_async_callback(self._receiving.close)
            for port in self.ports.values():
                stack.push_async_callback(port.close)
            await asyncio.gather(self._look(), self._prune(), self._connect())

    async def _open(self, stack: AsyncExitStack) -> None:
        """Again and again, until it is open: without it nothing goes out."""
        pause, told = FIRST, ""
        while not self._working:
            try:
                await stack.enter_async_context(self._outgoing)
                self._working = True
            except Exception as error:
                self._trouble = f"{type(error).__name__}: {error}"
                if told != (told := self._trouble):
                    log.warning("nothing is delivered to webhooks and channels at the moment: %s", told)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)

    async def _began(self, tenant: str, conversations: Sequence[str]) -> None:
        """Tell the channels of these conversations that an answer is being made; if it gets lost, it is lost."""
        for conversation in conversations:
            try:
                for channel, binding in await self._store.bound_to(tenant, conversation):
                    if (port := self.ports.get(channel.kind)) is not None:
                        await port.typing(channel, binding, True)
            except Exception as error:
                log.debug("a channel did not hear that an answer is being made: %s", error)

    async def _connect(self) -> None:
        """Keep the ports of kinds with connections told of the channels that there are."""
        while True:
            for kind, port in self.ports.items():
                if kind == "webhook":
                    continue
                try:
                    await port.connect(await self._store.active(kind))
                except Exception as error:
                    log.warning("channels of the kind %s are not looked after at the moment: %s", kind, error)
            await asyncio.sleep(self._look_every)

    async def _look(self) -> None:
        while True:
            try:
                self._lag, self._waiting = await self._lanes.lag(), await self._outbox.lag()
            except Exception as error:
                log.debug("how many deliveries wait is not known: %s", error)
            await asyncio.sleep(self._look_every)

    async def _prune(self) -> None:
        while True:
            try:
                while await self._lanes.prune(DAYS):
                    continue
            except Exception as error:
                log.warning("old deliveries are not removed at the moment: %s", error)
            await asyncio.sleep(EVERY)
