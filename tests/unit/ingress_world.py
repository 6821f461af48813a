"""A whole ingress on loopback: the real database, and a host, a journal and a model that live in the test."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import uvicorn
from pydantic import SecretStr

from actors.accepting import check_models
from domain.commands import Accepted, Append, Appended, Change, Ended, Send, UnfinishedTurn
from domain.conversation import Conversation, ConversationKey
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import BrainError, JournalUnavailable, ModelNotFound, Unavailable
from domain.events import ACCEPTED, COMPLETED, FAILED, MODEL, RESET, TERMINAL, Event, Layout, Position
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.message import Usage
from domain.model import Catalog
from domain.model_settings import ModelSettings
from domain.ports import AcceptedTurn, Ownership, Reply
from serve_app.access_watch import AccessWatch, forgets_tenants
from serve_app.ingress import metrics as ingress_metrics
from serve_app.ingress.app import create_app
from serve_app.ingress.catalogue import Catalogue
from serve_app.ingress.identity import identity
from serve_app.ingress.keys_used import KeysUsed
from serve_app.ingress.parts import Administration, IngressSettings, Parts
from serve_app.ingress.socket.sockets import Sockets
from serve_app.settings import Settings
from storage.access import API_KEYS
from storage.audit import PostgresAudit
from storage.catalog import CachedSettings
from storage.conversations import PostgresConversations
from storage.keys import PostgresKeys
from storage.ledger import PostgresLedger
from storage.platform import PostgresPlatform
from storage.postgres import Pool
from storage.products import PostgresProducts
from storage.reader import PostgresReader
from storage.roles import PostgresRoles
from storage.sealing import MasterKeys
from storage.tenants import PostgresTenants, delete_tenant
from tests.servers.given import open_pool

KEY = "k" * 40
MASTER_TEXT = (b"m" * 32).hex()
MASTER = MasterKeys.parse(MASTER_TEXT)
USAGE = Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=2, total_tokens=5)
CATALOG = Catalog.model_validate(
    {
        "providers": [
            {
                "name": "acme",
                "base_url": "http://127.0.0.1:9/v1",
                "models": [{"id": "small", "price_in": 0.1, "price_out": 0.4}, {"id": "org/large"}, {"id": "gpt-*"}],
            }
        ]
    }
)


class MemoryJournal:
    """The follower's side of a journal; `lost` makes it unreachable. Silence is told at once."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.sealed: set[str] = set()
        self.changed = asyncio.Condition()
        self.lost: BrainError | None = None
        self.followed: list[Position] = []

    async def append(self, *events: Event) -> None:
        async with self.changed:
            for event in events:
                self.events.setdefault(event.turn_id, []).append(event)
            self.changed.notify_all()

    async def seal(self, turn_id: str) -> None:
        async with self.changed:
            self.sealed.add(turn_id)
            self.changed.notify_all()

    async def lose(self, error: BrainError | None = None) -> None:
        async with self.changed:
            self.lost = error or JournalUnavailable()
            self.changed.notify_all()

    async def follow(
        self, tenant: str, turn_id: str, position: Position, kept: bool = True
    ) -> AsyncIterator[list[Event]]:
        self.followed.append(position)
        given = 0
        while True:
            async with self.changed:
                try:
                    async with asyncio.timeout(0.05):
                        while not (self.lost or self.events.get(turn_id, [])[given:] or turn_id in self.sealed):
                            await self.changed.wait()
                except TimeoutError:
                    pass
                if self.lost:
                    raise self.lost
                batch = self.events.get(turn_id, [])[given:]
                over = turn_id in self.sealed
            given += len(batch)
            fresh = [event for event in batch if (event.attempt, event.n) > (position.attempt, position.n)]
            if fresh or not over:
                yield fresh
            if any(event.type in TERMINAL for event in fresh) or (over and not kept):
                return


@dataclass
class Script:
    """How the next turns go: deltas told one by one, each after `go`; then the end."""

    deltas: Sequence[str] = ("Hel", "lo")
    error: dict[str, Any] | None = None
    text: str | None = None
    journalled: bool = True
    resets: bool = False
    go: asyncio.Event | None = None
    layout_lost: bool = False


class ScriptedHosts:
    """`Hosts` over the real store: every turn follows `script`."""

    def __init__(self, store: PostgresConversations, journal: MemoryJournal) -> None:
        self.store, self.journal, self.script = store, journal, Script()
        self.sent: list[Send] = []
        self.cancelled: list[str] = []
        self.refusal: BrainError | None = None
        self.catalog: Callable[[], Catalog] = lambda: CATALOG
        self.owners: dict[str, Ownership] = {}
        self.running: dict[str, asyncio.Task[Ended]] = {}
        self.latest: dict[str, asyncio.Task[Ended]] = {}  # of each conversation

    async def send(self, send: Send) -> Accepted | Ended:
        self.sent.append(send)
        if self.refusal is not None:
            raise self.refusal
        try:
            check_models(self.catalog(), ModelSettings(), send)
        except ModelNotFound:
            if await self.store.replayed(send.key, send) is None:
                raise
        owner = await self._owner(send.key)
        accepted = await self.store.accept(send.key, owner, send)
        if not accepted.replayed:
            before = self.latest.get(send.key.conversation)
            running = asyncio.create_task(self._run(send, owner, accepted, before))
            self.running[send.turn_id] = self.latest[send.key.conversation] = running
        elif (ended := await self.store.ended(send.key.tenant, accepted.turn.id)) is not None:
            return Ended(ended.turn, ended.user_message, ended.message, True)
        if send.wait:
            ended = await self.running[accepted.turn.id]
            return Ended(ended.turn, ended.user_message, ended.message, accepted.replayed)
        return Accepted(accepted.turn, accepted.user_message, accepted.replayed, self.script.journalled)

    async def change(self, change: Change) -> Conversation:
        owner = await self._owner(change.key)
        return await self.store.change(change.key, owner, change.fields, change.end)

    async def append(self, append: Append) -> Appended:
        return await self.store.append(await self._owner(append.key), append)

    async def delete(self, key: ConversationKey) -> None:
        await self.store.delete(key, await self._owner(key))

    async def cancel(self, key: ConversationKey, turn_id: str) -> None:
        self.cancelled.append(turn_id)
        if self.script.go is not None:
            self.script.go.set()
        await self.running[turn_id]

    async def _owner(self, key: ConversationKey) -> Ownership:
        if not any(not task.done() for task in self.running.values()) or key.conversation not in self.owners:
            activation = await self.store.activate(key, "0192f0c1-0000-7000-8000-000000000000")
            self.owners[key.conversation] = activation.ownership
        return self.owners[key.conversation]

    async def _run(
        self, send: Send, owner: Ownership, accepted: AcceptedTurn, before: asyncio.Task[Ended] | None
    ) -> Ended:
        script, turn_id, attempt = self.script, send.turn_id, 1
        layout: Layout = [{"type": ACCEPTED}]
        n = 0

        async def tell(kind: str, data: dict[str, Any]) -> None:
            nonlocal n
            n += 1
            if script.journalled:
                await self.journal.append(Event(turn_id, attempt, n, kind, data))

        await tell(ACCEPTED, {"user_message": accepted.user_message.model_dump(mode="json")})
        if before is not None and accepted.turn.status == "queued":  # a conversation's turns run one after another
            await asyncio.wait((before,))
            await self.store.start(send.key, owner, turn_id)
        chosen = {"model": send.model if send.model != "auto" else "small", "reason": "the test wants it"}
        layout.append({"type": MODEL, **chosen})
        await tell(MODEL, chosen)
        if script.resets:
            await tell("message.delta", {"text": "lost"})
            await self.store.next_attempt(send.key, owner, turn_id, 2)
            attempt, n, layout = 2, 0, [{"type": RESET, "reason": "again"}]
            await tell(RESET, {"reason": "again"})
        for delta in script.deltas:
            if script.go is not None:
                await script.go.wait()
            layout.append(len(delta))
            await tell("message.delta", {"text": delta})
        if script.go is not None:
            await script.go.wait()
        reply = Reply(
            status="failed" if script.error else "completed",
            message_id=new_id("msg"),
            text="".join(script.deltas) if script.text is None else script.text,
            model=chosen["model"],
            intent=None,
            usage=USAGE,
            cost_usd=1.1e-06,
            error=script.error,
            layout=None if script.layout_lost or not script.journalled else layout,
            trace={"timings_ms": {"first_token": 12.5, "total": 30.0}, "chosen": chosen["model"]},
            window_from=1,
        )
        asked = UnfinishedTurn(accepted.turn, accepted.user_message, send.model, send.parameters, True, True)
        ended = await self.store.finish(send.key, owner, asked, attempt, reply)
        message = ended.message and ended.message.model_dump(mode="json")
        if ended.turn.status == "failed":
            await tell(FAILED, {"error": ended.turn.error, "message": message})
        else:
            data = {"message": message, "usage": USAGE.model_dump(), "cost_usd": 1.1e-06}
            kind = COMPLETED if ended.turn.status == "completed" else "turn.cancelled"
            await tell(kind, data if kind == COMPLETED else {"message": message})
        return ended


class ScriptedModel:
    """`LanguageModel` that says `outcome`, its `deltas` through the journal."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self.outcome = Outcome("completed", "Hello", "small", "stop", USAGE)
        self.deltas: Sequence[str] = ("Hel", "lo")
        self.asked: list[GenerationRequest] = []
        self.cancelled: list[GenerationRequest] = []
        self.go: asyncio.Event | None = None
        self.heard_cancel = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> Outcome:
        self.asked.append(request)
        for n, text in enumerate(self.deltas if request.journal else (), 1):
            await self._journal.append(Event(request.turn_id, 1, n, "message.delta", {"text": text}))
        if self.go is not None:
            await self.go.wait()
        await self._journal.seal(request.turn_id)
        return self.outcome

    async def cancel(self, request: GenerationRequest) -> None:
        self.cancelled.append(request)
        self.heard_cancel.set()


class NoClassifier:
    async def classify(self, text, tenant=""):
        raise Unavailable("no classifier here")


class SmallEmbedder:
    async def embed(self, text: str) -> Embedding:
        return [1.0, 0.0]

    async def embed_many(self, texts: Sequence[str]) -> list[Embedding]:
        return [[0.6, 0.8] for _ in texts]

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    async def describe(self) -> dict[str, Any]:
        return EmbedderInfo("acme/mini", 2, 256, "r")


@dataclass
class World:
    """Everything that a test may turn, and the client that it asks through."""

    pool: Pool
    tenant: str
    hosts: ScriptedHosts
    journal: MemoryJournal
    model: ScriptedModel
    parts: Parts
    http: httpx.AsyncClient
    url: str = ""
    answers: list[Any] = field(default_factory=list)

    async def conversation(self, **fields: Any) -> str:
        answer = await self.http.post("/api/v1/conversations", json=fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def send(self, conversation: str, content: str = "hi", headers: Any = None, **fields: Any) -> httpx.Response:
        path = f"/api/v1/conversations/{conversation}/messages"
        return await self.http.post(path, json={"content": content, **fields}, headers=headers)

    async def events(self, path: str, headers: Any = None, body: Any = None) -> list[str]:
        """The blocks of an event stream, read to its end."""
        method = "GET" if body is None else "POST"
        answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
        return [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]


@asynccontextmanager
async def world(
    database_url: str,
    tenant: str,
    settings: IngressSettings,
    administered: bool = False,
    sockets: Sockets | None = None,
) -> AsyncIterator[World]:
    """`administered`: with tenants, keys and roles that can be changed, and an ear for changes of access. `sockets`:
    those of this replica; whoever gives them starts them."""
    pool = await open_pool(database_url, 8)
    reader, journal = PostgresReader(pool, MASTER.derived(API_KEYS)), MemoryJournal()
    hosts, model = ScriptedHosts(PostgresConversations(pool), journal), ScriptedModel(journal)

    products = PostgresProducts(pool)

    async def page() -> str:
        return ingress_metrics.render()

    parts = Parts(
        reader=reader,
        hosts=hosts,
        follower=journal,
        llm=model,
        embedder=SmallEmbedder(),
        classifier=NoClassifier(),
        catalog=CATALOG,
        metrics=page,
        ledger=PostgresLedger(pool),
        catalogue=Catalogue(products, products),
        checks={"postgres": reader.ping},
        settings=settings,
        sockets=sockets,
        **(administration(pool, reader) if administered else {}),
    )
    if parts.watch is not None:
        if parts.identity is not None:
            parts.identity.start(parts.watch)
        parts.watch.start()
    hosts.catalog = lambda: parts.catalog
    async with serving(create_app(parts)) as url:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as http:
            yield World(pool, tenant, hosts, journal, model, parts, http, url)
    for task in hosts.running.values():
        task.cancel()
    await asyncio.gather(*hosts.running.values(), return_exceptions=True)
    await parts.accounts.close(0.2)
    if parts.watch is not None:
        await parts.watch.close()
    if parts.identity is not None:
        await parts.identity.close()
    await pool.close()


def administration(pool: Pool, reader: PostgresReader) -> dict[str, Any]:
    """The parts with which tenants, keys and roles are changed."""
    tenants, keys, watch = PostgresTenants(pool), PostgresKeys(pool, MASTER), AccessWatch(reader)
    known = CachedSettings(tenants.settings)
    watch.listeners.append(forgets_tenants(known))
    changed = Administration(
        tenants,
        keys,
        PostgresRoles(pool),
        PostgresAudit(pool),
        PostgresPlatform(pool),
        partial(delete_tenant, pool),
        KeysUsed(keys.used),
    )
    found = identity(Settings(master_key=SecretStr(MASTER_TEXT)), pool, None)
    return {
        "watch": watch,
        "tenants": known,
        "administration": changed,
        "identity": found,
        "find_token": found.callers.find,
    }


class PromptServer(uvicorn.Server):
    """Ends as soon as it is told. uvicorn's looks whether it is to end ten times a second, and waits a tenth of one for
    its connections whether there are any or not: more than most tests take."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()  # they are pytest's

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        state, patience = self.server_state, self.config.timeout_graceful_shutdown
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while state.connections or state.tasks:
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """`app` behind uvicorn on a free port of loopback."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio sets TCP_NODELAY only where it is named
        listener.bind(("127.0.0.1", 0))
        server = PromptServer(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.wait((task,), timeout=0.002)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.told.set()
        await task
