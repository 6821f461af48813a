"""The ingress with every part that a replica gives it, and in its database two tenants with one of each thing."""

import json
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from redis.asyncio import Redis

from adapters.allow_list import NONE, AllowList
from adapters.catalog.asking import Asking
from adapters.catalog.keeping import Keeping
from adapters.guarded_http import Guarded
from adapters.mcp_servers import McpServers
from domain.ids import new_id
from domain.model import Catalog
from serve_app.caches import Caches
from serve_app.catalog_watch import CatalogWatch
from serve_app.erasing import Erasing
from serve_app.ingress.callers import Callers
from serve_app.ingress.catalogue import Catalogue, Sources
from serve_app.ingress.event_parts import events
from serve_app.ingress.identity import Identity, identity
from serve_app.ingress.limiter import Limiter, OfSettings
from serve_app.ingress.parts import IngressSettings, Intents, Parts, Privacy
from serve_app.ingress.socket.sockets import sockets
from serve_app.ingress.tool_parts import ToolParts
from serve_app.memory import Memory
from serve_app.outward import open_outward
from serve_app.settings import Settings
from serve_app.tenant_catalogues import TenantCatalogues, endpoints, forgets_endpoints
from serve_app.tool_service import ToolService
from storage import erasure, receipts
from storage.access import key_hash
from storage.bootstrap import bootstrap
from storage.caches import LocalCache, tell_flush
from storage.catalog import CachedSettings, PostgresCatalog
from storage.catalogue_sources import PostgresCatalogueSources
from storage.clients import token_hash
from storage.data_export import PostgresDataExport
from storage.erased_journals import forget_journals
from storage.erasure import PostgresErasure
from storage.intents import PostgresIntents
from storage.limits import RedisLimits
from storage.postgres import Pool
from storage.products import PostgresProducts
from storage.recall import PostgresRecall
from storage.redis import open_redis
from storage.sessions import Session
from storage.signing_keys import SigningKey
from storage.spaces import PostgresSpaces
from storage.tool_servers import PostgresToolServers
from tests.storage.memory_world import MemoryWorld
from tests.unit.ingress_world import CATALOG, KEY, MASTER, World, administration, world
from tests.unit.intents_world import PARCEL, REFUND, understanders
from tests.unit.signed import signed

NOWHERE = "http://127.0.0.1:9/mcp"
PROVIDER = {"base_url": "http://127.0.0.1:9/v1", "models": [{"id": "registered"}]}
ISSUER = "https://brain.example"
EMAIL, PASSWORD = "ann@example.com", "correct horse battery"  # of a user of each tenant


@dataclass
class Tenant:
    """`things`: an id of its own for each name that a path has a parameter of."""

    id: str
    things: dict[str, str] = field(default_factory=dict)


@dataclass
class Whole:
    """`owner`: a connection to the database as its owner. `signing`: the key that signs access tokens."""

    world: World
    owner: psycopg.Connection[Any]
    own: Tenant
    other: Tenant
    signing: SigningKey
    owners: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        found = self.world.parts.identity
        assert found is not None
        return found

    async def call(self, method: str, path: str, tenant: str, body: Any = None) -> Any:
        """Asked with a key that may do everything in the tenant."""
        headers = self.owner_of(tenant)
        answer = await self.world.http.request(method, f"/api/v1/{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    def sql(self, statement: str, *values: Any) -> None:
        self.owner.execute(statement, values)

    def tenant(self, status: str = "active") -> Tenant:
        made = Tenant(new_id("ten"))
        self.sql("INSERT INTO brain.tenants (id, name, status) VALUES (%s, 'acme', %s)", made.id, status)
        return made

    def user(self, tenant: str, status: str = "active", role: str = "member") -> str:
        made = new_id("usr")
        self.sql(
            "INSERT INTO brain.users (tenant_id, id, email, email_key, role, status) VALUES (%s, %s, %s, %s, %s, %s)",
            *(tenant, made, f"{made}@example.com", f"{made}@example.com", role, status),
        )
        return made

    def key(
        self,
        tenant: str,
        role: str,
        scopes: Iterable[str] | None = None,
        user: str | None = None,
        **columns: Any,
    ) -> str:
        """A key that counts at once. `columns`: further ones of its row, such as `revoked_at`."""
        made = f"brain_{new_id('key')}"
        scoped = None if scopes is None else list(scopes)
        values = {
            "id": new_id("key"),
            "hash": key_hash(made),
            "role": role,
            "scopes": scoped,
            "user_id": user,
            **columns,
        }
        names = ", ".join(values)
        self.sql(
            f"INSERT INTO brain.api_keys (tenant_id, name, {names}) VALUES (%s, 'k'{', %s' * len(values)})",
            *(tenant, *values.values()),
        )
        return made

    async def session(self, tenant: str, user: str) -> tuple[str, str]:
        """A sign-in of the user, and its refresh token."""
        made, refresh = new_id("ses"), f"brt_{tenant.removeprefix('ten_')}_{secrets.token_urlsafe(32)}"
        await self.identity.sessions.open(tenant, Session(made, user), token_hash(refresh))
        return made, refresh

    async def token(self, tenant: str, role: str, status: str = "active", /, **changed: Any) -> str:
        """An access token of a new user who has signed in. `changed`: as of `signed`."""
        user = self.user(tenant, status, role)
        session, _ = await self.session(tenant, user)
        tokens = self.identity.tokens
        claims = {"iss": tokens.issuer, "aud": tokens.audience, "sub": user, "client_id": user, "tenant": tenant}
        return signed(self.signing, {**claims, "role": role, "sid": session}, **changed)

    def owner_of(self, tenant: str) -> dict[str, str]:
        """The header of a key that may do everything in the tenant."""
        if tenant not in self.owners:
            self.owners[tenant] = self.key(tenant, "owner")
        return {"authorization": f"Bearer {self.owners[tenant]}"}

    async def conversation(self, tenant: str, user: str | None = None) -> dict[str, str]:
        """A conversation with one turn that has ended; its ids by the names of paths' parameters."""
        key = self.owner_of(tenant)
        body = {"user_id": user} if user else {}
        made = await self.world.http.post("/api/v1/conversations", json=body, headers=key)
        assert made.status_code == 201, made.text
        conversation = made.json()["id"]
        sent = await self.world.send(conversation, "where is my parcel", headers=key)
        assert sent.status_code == 200, sent.text
        turn, message = sent.json()["turn"], sent.json()["message"]
        return {"conversation_id": conversation, "turn_id": turn["id"], "message_id": message["id"]}

    async def intent(self, tenant: str) -> dict[str, str]:
        key = self.owner_of(tenant)
        body = {"name": f"refund-{new_id('int')[-8:]}", "examples": REFUND}
        made = await self.world.http.post("/api/v1/intents", json=body, headers=key)
        assert made.status_code == 201, made.text
        return {"intent_id": made.json()["id"]}

    async def training(self, tenant: str) -> dict[str, str]:
        key = self.owner_of(tenant)
        examples = [{"text": text, "intent": name} for name, texts in (("a", REFUND), ("b", PARCEL)) for text in texts]
        made = await self.world.http.post(
            "/api/v1/intents/train", json={"examples": examples, "wait": True}, headers=key
        )
        assert made.status_code == 200, made.text
        return {"training_id": made.json()["id"]}

    async def things(self, tenant: str, trained: bool = True) -> dict[str, str]:
        """One of each thing that a path may name; a training only if it is asked for, for it takes its time."""
        user = self.user(tenant, role=(role := await self.role(tenant)))
        made = {"tenant_id": tenant, "user_id": user, "role": role, "key_id": self.key_of(tenant)}
        made |= await self.conversation(tenant, user) | await self.intent(tenant)
        made |= await self.training(tenant) if trained else {}
        made["client_id"] = await self.client(tenant)
        made["session_id"], _ = await self.session(tenant, user)
        made["product_id"] = await self.product(tenant)
        made["server_id"] = await self.tool_server(tenant)
        return made | await self.outward(tenant, made["conversation_id"])

    async def outward(self, tenant: str, conversation: str) -> dict[str, str]:
        """A webhook with a delivery, and a channel that shows the conversation."""
        body: dict[str, Any] = {"url": "https://hooks.example.com/x", "events": ["*"]}
        webhook = (await self.call("POST", "webhooks", tenant, body))["id"]
        delivery = (await self.call("POST", f"webhooks/{webhook}/test", tenant))["id"]
        body = {"kind": "webhook", "name": "shop", "settings": {"url": "https://shop.example.com"}}
        channel = (await self.call("POST", "channels", tenant, body))["id"]
        bound = {"channel_id": channel, "thread": f"thread of {conversation}"}
        await self.call("POST", f"conversations/{conversation}/channels", tenant, bound)
        return {"webhook_id": webhook, "delivery_id": delivery, "channel_id": channel}

    async def tool_server(self, tenant: str) -> str:
        """A server of tools that does not answer."""
        body = {"name": f"s-{new_id('mcp')[-8:]}", "url": NOWHERE, "allow": []}
        made: str = (await self.call("POST", "tools/servers", tenant, body))["id"]
        return made

    async def role(self, tenant: str) -> str:
        """The name of a role of the tenant's own, which may do nothing."""
        name = f"role-{new_id('int')[-8:]}"
        await self.call("POST", "roles", tenant, {"name": name, "permissions": []})
        return name

    async def client(self, tenant: str) -> str:
        made: str = (await self.call("POST", "clients", tenant, {"name": "a program"}))["id"]
        return made

    async def product(self, tenant: str) -> str:
        """The shop's own id of a product."""
        made = new_id("int").replace("int_", "sku-")
        await self.call("PUT", f"catalog/products/{made}", tenant, {"title": "A thing", "price": 5, "currency": "USD"})
        return made

    def key_of(self, tenant: str) -> str:
        """The id of a fresh key of the tenant, which may do nothing."""
        made = new_id("key")
        self.key(tenant, "member", [], id=made)
        return made

    async def provider(self) -> None:
        """A registered provider `mine`."""
        key = {"authorization": f"Bearer {KEY}"}
        made = await self.world.http.put("/api/v1/admin/models/providers/mine", json=PROVIDER, headers=key)
        assert made.status_code == 200, made.text


@asynccontextmanager
async def whole(
    url: str, folder: Path, redis_url: str, settings: IngressSettings | None = None
) -> AsyncIterator[Whole]:
    """`url`: of a database of its own, as its owner."""
    operator = bootstrap(url, KEY)[0]
    with psycopg.connect(url, autocommit=True) as owner:
        async with _whole(owner, url, operator, folder, redis_url, settings) as made:
            yield made


@asynccontextmanager
async def _whole(
    owner: psycopg.Connection[Any],
    url: str,
    operator: str,
    folder: Path,
    redis_url: str,
    settings: IngressSettings | None,
) -> AsyncIterator[Whole]:
    redis = open_redis(redis_url)
    opened = sockets(open_redis(redis_url), open_redis(redis_url, timeout=10))
    async with (
        world(url, operator, settings or IngressSettings(poll=0.01), sockets=opened) as made,
        understanders(made.pool, folder) as found,
    ):
        parts, store = made.parts, PostgresCatalog(made.pool)
        memory = MemoryWorld(url, made.pool)

        async def use(catalog: Catalog) -> None:
            parts.catalog = catalog

        async def wake() -> None:
            found.trainer.wake()

        parts.models = models = CachedSettings(store.settings)
        parts.registry = CatalogWatch(store, use, models, every=0.05)
        await parts.registry.configure(CATALOG)
        parts.classifier = found.replicas[0]
        parts.intents = Intents(PostgresIntents(made.pool), found.trainings, found.heads, wake)
        parts.outward = outward = await open_outward(made.pool, MASTER, NONE, parts.hosts)
        parts.memory = Memory(PostgresRecall(made.pool), PostgresSpaces(made.pool), memory.embedder, memory.open_store)
        signing = await _guard(parts, made.pool, redis, redis_url, models)
        opened.start(parts.callers, parts.watch)
        await memory.settle()
        one = Whole(made, owner, Tenant(""), Tenant(""), signing)
        one.own, one.other = one.tenant(), one.tenant()
        parts.events = events(made.pool, redis_url)
        await one.provider()
        for each in (operator, one.own.id, one.other.id):
            await one.call("POST", "users", each, {"email": EMAIL, "password": PASSWORD})
        for own in (one.own, one.other):
            own.things |= await one.things(own.id)
        yield one
        await opened.close()
        await memory.close()
        await outward.close()
        await parts.registry.close()
        await parts.events.close()
        await parts.limiter.close()
        await one.identity.close()
        await redis.aclose()


async def _guard(parts: Parts, pool: Pool, redis: Redis, redis_url: str, models: CachedSettings[Any]) -> SigningKey:
    """Give `parts` what knows who may come in, as a replica does; the key that signs access tokens."""
    for name, part in administration(pool, parts.reader).items():
        setattr(parts, name, part)
    watch, tenants = parts.watch, parts.tenants
    assert watch is not None
    parts.identity = found = identity(Settings(master_key=MASTER.keys[0].hex(), issuer=ISSUER), pool, redis)
    parts.find_token = found.callers.find
    parts.callers = Callers(parts.reader.find_api_key, parts.find_token)
    parts.callers.current = watch.current
    parts.caches = Caches({"model-settings": models, "tenant-settings": tenants, "credentials": parts.callers})
    parts.tell_flush = partial(tell_flush, pool)
    parts.master_keys = MASTER
    parts.tenant_limits = OfSettings(tenants.settings)
    parts.shared_limits = RedisLimits(open_redis(redis_url, timeout=1))
    parts.limiter = Limiter(parts.tenant_limits, parts.shared_limits)
    parts.limiter.start()
    erasing = Erasing(
        PostgresErasure(pool, MASTER.derived(erasure.PURPOSE)),
        parts.hosts,
        receipts.Receipts(MASTER.derived(receipts.PURPOSE)),
        partial(forget_journals, redis),
        parts.memory,
        watch.refresh,
        wait=0,
    )
    loopback = AllowList.parse("127.0.0.1")
    servers = PostgresToolServers(pool)
    service = ToolService(servers, MASTER, McpServers(Guarded(loopback)))
    parts.tools = ToolParts(servers, service.refresh, MASTER, loopback)
    stored, products = PostgresCatalogueSources(pool), PostgresProducts(pool)
    sources, cache = endpoints(stored, MASTER), LocalCache()
    assert parts.outward is not None
    read = TenantCatalogues(products, Keeping(Asking(parts.outward.outgoing), cache), sources)
    parts.catalogue = Catalogue(read, products, Sources(stored, MASTER, loopback, read))
    parts.caches.named["catalogue"] = cache
    parts.privacy = Privacy(erasing, PostgresDataExport(pool))
    watch.listeners += [parts.callers.forget, parts.caches.heard, forgets_endpoints(sources)]
    found.start(watch)
    await watch.refresh()
    watch.start()
    return (await found.keys.present())[0]


def minimal(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """The smallest value that a JSON schema of our document allows: what is required, and no more."""
    if "$ref" in schema:
        return minimal(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for kind in ("anyOf", "oneOf", "allOf"):
        if kind in schema:
            return minimal(schema[kind][0], schemas)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: minimal(schema["properties"][name], schemas) for name in schema.get("required", ())}
    if kind == "array":
        return [minimal(schema["items"], schemas)] * max(1, schema.get("minItems", 0))
    if kind == "string":
        return "a" * max(1, schema.get("minLength", 0))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}[kind]


def body_of(operation: dict[str, Any], document: dict[str, Any]) -> bytes | None:
    """The smallest body that an operation takes; None where it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return None
    return json.dumps(minimal(content["application/json"]["schema"], document["components"]["schemas"])).encode()
