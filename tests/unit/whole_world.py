"""The ingress with every part that a replica gives it, and in its database two tenants with one of each thing."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from domain.ids import new_id
from domain.model import Catalog
from serve_app.access_watch import AccessWatch
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress import IngressSettings
from serve_app.ingress.parts import Intents
from serve_app.memory import Memory
from storage.access import key_hash
from storage.bootstrap import bootstrap
from storage.catalog import CachedSettings, PostgresCatalog
from storage.intents import PostgresIntents
from storage.recall import PostgresRecall
from storage.spaces import PostgresSpaces
from tests.storage.memory_world import MemoryWorld
from tests.unit.ingress_world import CATALOG, KEY, World, world
from tests.unit.intents_world import PARCEL, REFUND, understanders

PROVIDER = {"base_url": "http://127.0.0.1:9/v1", "models": [{"id": "registered"}]}


@dataclass
class Tenant:
    """`things`: an id of its own for each name that a path has a parameter of."""

    id: str
    things: dict[str, str] = field(default_factory=dict)


@dataclass
class Whole:
    """`owner`: a connection to the database as its owner."""

    world: World
    owner: psycopg.Connection[Any]
    own: Tenant
    other: Tenant
    owners: dict[str, str] = field(default_factory=dict)

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
        values = {"hash": key_hash(made), "role": role, "scopes": scoped, "user_id": user, **columns}
        names = ", ".join(values)
        self.sql(
            f"INSERT INTO brain.api_keys (tenant_id, id, name, {names}) VALUES (%s, %s, 'k'{', %s' * len(values)})",
            *(tenant, new_id("key"), *values.values()),
        )
        return made

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

    async def provider(self) -> None:
        """A registered provider `mine`."""
        key = {"authorization": f"Bearer {KEY}"}
        made = await self.world.http.put("/api/v1/admin/models/providers/mine", json=PROVIDER, headers=key)
        assert made.status_code == 200, made.text


@asynccontextmanager
async def whole(url: str, folder: Path, settings: IngressSettings | None = None) -> AsyncIterator[Whole]:
    """`url`: of a database of its own, as its owner."""
    operator = bootstrap(url, KEY)[0]
    with psycopg.connect(url, autocommit=True) as owner:
        async with _whole(owner, url, operator, folder, settings) as made:
            yield made


@asynccontextmanager
async def _whole(
    owner: psycopg.Connection[Any], url: str, operator: str, folder: Path, settings: IngressSettings | None
) -> AsyncIterator[Whole]:
    async with (
        world(url, operator, settings or IngressSettings(poll=0.01)) as made,
        understanders(made.pool, folder) as found,
    ):
        parts, store = made.parts, PostgresCatalog(made.pool)
        memory = MemoryWorld(url, made.pool)

        async def use(catalog: Catalog) -> None:
            parts.catalog = catalog

        async def wake() -> None:
            found.trainer.wake()

        parts.models = CachedSettings(store.settings)
        parts.registry = CatalogWatch(store, use, parts.models, every=0.05)
        await parts.registry.configure(CATALOG)
        parts.classifier = found.replicas[0]
        parts.intents = Intents(PostgresIntents(made.pool), found.trainings, found.heads, wake)
        parts.memory = Memory(PostgresRecall(made.pool), PostgresSpaces(made.pool), memory.embedder, memory.open_store)
        parts.watch = AccessWatch(parts.reader)
        parts.watch.listeners.append(parts.callers.forget)
        await memory.settle()
        one = Whole(made, owner, Tenant(""), Tenant(""))
        one.own, one.other = one.tenant(), one.tenant()
        await one.provider()
        for each in (one.own, one.other):
            each.things |= {"tenant_id": each.id, "user_id": one.user(each.id)}
            for things in (await one.conversation(each.id), await one.intent(each.id), await one.training(each.id)):
                each.things |= things
        yield one
        await memory.close()
        await parts.registry.close()


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
