"""An ingress where people sign in: the real database and Redis, and a watch that hears what changes of access."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from domain.ids import new_id
from serve_app.access_watch import AccessWatch
from serve_app.ingress.callers import Callers
from serve_app.ingress.identity import Identity, identity
from serve_app.ingress.parts import IngressSettings
from serve_app.settings import Settings
from storage.access import key_hash
from storage.redis import open_redis
from tests.unit.ingress_world import World, world

MASTER = "ab" * 32
PASSWORD = "correct horse battery"


@dataclass
class People:
    """`headers`: of keys by their roles, of one tenant; and of another tenant's admin as `stranger`."""

    world: World
    identity: Identity
    watch: AccessWatch
    database_url: str
    tenant: str
    headers: dict[str, dict[str, str]]

    async def call(
        self, method: str, path: str, body: Any = None, as_: Any = "admin", status: int = 200, **options: Any
    ) -> Any:
        answer = await self.ask(method, path, body, as_, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ask(self, method: str, path: str, body: Any = None, as_: Any = "admin", **options: Any) -> httpx.Response:
        """`as_`: a role, headers, an access token, or None for nobody."""
        if isinstance(as_, str):
            as_ = self.headers.get(as_) or {"authorization": f"Bearer {as_}"}
        headers = {"authorization": "", **(as_ or {}), **options.pop("headers", {})}
        path = path if path.startswith("/") else f"/api/v1/{path}"
        return await self.world.http.request(method, path, json=body, headers=headers, **options)

    async def user(self, role: str = "member", **fields: Any) -> dict[str, Any]:
        body = {"email": address(), "password": PASSWORD, "role": role, **fields}
        return dict(await self.call("POST", "users", body, "owner", status=201))

    async def sign_in(self, user: dict[str, Any], password: str = PASSWORD) -> dict[str, Any]:
        return dict(await self.call("POST", "auth/login", {"email": user["email"], "password": password}, "service"))

    async def signed_in(self, role: str = "member", **fields: Any) -> tuple[dict[str, Any], str]:
        """A new user, and an access token of its."""
        user = await self.user(role, **fields)
        return user, (await self.sign_in(user))["access_token"]

    def key(self, role: str, tenant: str | None = None) -> dict[str, str]:
        return key(self.database_url, tenant or self.tenant, role)

    def audited(self, subject: str) -> list[str]:
        """What the audit log says of this."""
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute(
                "SELECT action FROM brain.audit WHERE tenant_id = %s AND subject = %s ORDER BY id",
                (self.tenant, subject),
            )
            return [row[0] for row in rows]


def address() -> str:
    return f"{secrets.token_hex(8)}@example.com"


def key(url: str, tenant: str, role: str) -> dict[str, str]:
    secret = "brain_" + secrets.token_urlsafe(32)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'o') ON CONFLICT DO NOTHING", (tenant,))
        connection.execute(
            "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, %s)",
            (tenant, new_id("key"), key_hash(secret), role),
        )
    return {"authorization": f"Bearer {secret}"}


@asynccontextmanager
async def people(
    database_url: str, redis_url: str | None, tenant: str, oidc: Path | None = None, **settings: Any
) -> AsyncIterator[People]:
    given = Settings(master_key=MASTER, issuer="https://brain.example", oidc_file=oidc, **settings)
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        redis = None if redis_url is None else open_redis(redis_url)
        found = identity(given, made.pool, redis)
        watch = AccessWatch(made.parts.reader, every=0.05)
        parts = made.parts
        parts.identity, parts.watch, parts.find_token = found, watch, found.callers.find
        parts.callers = Callers(parts.reader.find_api_key, found.callers.find)
        parts.callers.current = watch.current
        watch.listeners.append(parts.callers.forget)
        found.start(watch)
        await watch.refresh()
        watch.start()
        own = new_id("ten")
        roles = ("owner", "admin", "agent", "member", "read-only", "service")
        headers = {role: key(database_url, own, role) for role in roles}
        headers["stranger"] = key(database_url, new_id("ten"), "owner")
        headers["operator"] = {"authorization": made.http.headers["authorization"]}
        yield People(made, found, watch, database_url, own, headers)
        await watch.close()
        await found.close()
        if redis is not None:
            await redis.aclose()
