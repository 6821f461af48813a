"""An ingress in which tenants, keys and roles are changed, and callers of each kind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from adapters.allow_list import NONE
from serve_app.ingress.parts import IngressSettings
from serve_app.outward import open_outward
from tests.unit.ingress_world import MASTER, World, world

Headers = dict[str, str]


def bearer(key: str) -> Headers:
    return {"authorization": f"Bearer {key}"}


@dataclass
class Office:
    """`call` asks below `/api/v1`, as the operator unless `by` says otherwise."""

    world: World

    async def ask(self, method: str, path: str, body: Any = None, by: Headers | None = None, **more: Any) -> Any:
        headers = {**(by or {}), **more.pop("headers", {})}
        return await self.world.http.request(method, f"/api/v1/{path}", json=body, headers=headers, **more)

    async def call(
        self, method: str, path: str, body: Any = None, by: Headers | None = None, status: int = 200, **more: Any
    ) -> Any:
        answer: httpx.Response = await self.ask(method, path, body, by, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def refused(
        self, method: str, path: str, body: Any = None, by: Headers | None = None, status: int = 403
    ) -> tuple[str | None, str | None]:
        """The code and the parameter of the error."""
        error = (await self.call(method, path, body, by, status))["error"]
        return error["code"], error["param"]

    async def tenant(self, name: str = "acme", **settings: Any) -> str:
        made = await self.call("POST", "admin/tenants", {"name": name, "settings": settings}, status=201)
        return str(made["id"])

    async def key(self, tenant: str, role: str, **fields: Any) -> Headers:
        """The headers of a new key, made by the operator."""
        body = {"name": role, "role": role, **fields}
        return bearer((await self.call("POST", f"admin/tenants/{tenant}/keys", body, status=201))["key"])


@asynccontextmanager
async def office(database_url: str, tenant: str) -> AsyncIterator[Office]:
    async with world(database_url, tenant, IngressSettings(poll=0.01), administered=True) as made:
        parts = made.parts
        parts.outward = outward = await open_outward(made.pool, MASTER, NONE, parts.hosts)
        try:
            yield Office(made)
        finally:
            await outward.close()
