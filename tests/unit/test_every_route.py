"""Every route, asked by whoever should not get in, by each role, and for what belongs to others.

The expected status follows from the permission that the route names, so a new route is asked as soon as it is there.
"""

import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.routing import APIRoute

from domain.ids import new_id
from domain.permissions import GIVEN, OPERATOR, Permission, permissions_of
from serve_app.ingress import unsigned
from serve_app.ingress.app import create_app
from storage.signing_keys import ALGORITHM, PREFIX, jwk, thumbprint
from tests.conftest import make_database
from tests.unit.ingress_world import KEY
from tests.unit.signed import spellings
from tests.unit.test_permissions import PUBLIC, routes
from tests.unit.whole_world import EMAIL, NOWHERE, PASSWORD, Whole, body_of, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

OF_A_TENANT = {
    *("conversation_id", "message_id", "turn_id", "intent_id", "training_id", "tenant_id", "user_id"),
    *("key_id", "client_id", "session_id", "role", "product_id", "webhook_id", "delivery_id", "channel_id"),
    "server_id",
}
OF_A_USER = {"conversation_id", "message_id", "turn_id"}
OF_ALL = {
    **{"model_id": "small", "name": "mine", "provider": "mine", "cache": "tenant-settings"},
    **{"topic": "brain", "group": "billing"},
}
"""Parameters of paths: ids of what a tenant has, of what a user has, and names that mean the same to everybody.

A new parameter stands in one of them: where it is a tenant's, `whole_world.Whole.things` makes one of each.
"""

NAMES = {"/api/v1/roles/{name}": "role", "/api/v1/admin/caches/{name}/flush": "cache"}
"""What a `name` is the name of, where it is not a provider's."""

Things = dict[str, str]
TOPIC = "/api/v1/admin/events/topics/{topic}"
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/api/v1/admin/models/providers/{name}"): {"base_url": "http://127.0.0.1:9/v1", "models": []},
    ("PUT", "/api/v1/admin/models/{provider}/{model_id:path}"): {"context_tokens": 4096},
    ("PATCH", "/api/v1/conversations/{conversation_id}"): {"title": "another"},
    ("POST", "/api/v1/intents/rollback"): {"version": 0},
    ("POST", "/api/v1/catalog/offers"): lambda things: {"ids": [things["product_id"]]},
    ("POST", "/api/v1/catalog/products/import"): [{"id": "sku", "title": "A thing"}],
    ("PATCH", "/api/v1/tenants/{tenant_id}"): {"name": "another"},
    ("PATCH", "/api/v1/admin/tenants/{tenant_id}"): {"name": "another"},
    ("PATCH", "/api/v1/users/{user_id}"): {"name": "another"},
    ("POST", "/api/v1/webhooks"): {"url": "https://hooks.example.com", "events": ["*"]},
    ("PATCH", "/api/v1/webhooks/{webhook_id}"): {"description": "another"},
    ("POST", "/api/v1/channels"): {
        "kind": "webhook",
        "name": "shop",
        "settings": {"url": "https://shop.example.com"},
    },
    ("PATCH", "/api/v1/channels/{channel_id}"): {"name": "another"},
    ("POST", "/api/v1/conversations/{conversation_id}/channels"): lambda things: {
        "channel_id": things["channel_id"],
        "thread": f"thread of {things['conversation_id']}",
    },
    ("POST", "/api/v1/auth/login"): {"email": EMAIL, "password": PASSWORD},
    ("POST", "/api/v1/users"): lambda things: {"email": f"{new_id('usr')}@example.com", "role": things["role"]},
    ("PUT", "/api/v1/roles/{name}"): {"permissions": []},
    ("POST", "/api/v1/keys"): {"name": "k", "scopes": []},
    ("POST", "/api/v1/clients"): {"name": "a program", "scopes": []},
    ("POST", "/api/v1/auth/register"): lambda _: {"email": f"{new_id('usr')}@example.com", "password": PASSWORD},
    ("POST", "/api/v1/roles"): lambda _: {"name": f"role-{new_id('int')[-8:]}", "permissions": []},
    ("POST", "/api/v1/admin/events/topics"): {"name": "topic-of-mine", "patterns": ["turn.*"]},
    ("POST", f"{TOPIC}/groups"): {"name": "billing"},
    ("POST", f"{TOPIC}/groups/{{group}}/ack"): {"ids": ["1-0"]},
    ("POST", f"{TOPIC}/groups/{{group}}/nack"): {"ids": ["1-0"]},
    ("POST", f"{TOPIC}/groups/{{group}}/replay"): {"since": "2026-01-01T00:00:00Z"},
    ("POST", f"{TOPIC}/dead/redrive"): {"ids": ["1-0"]},
    ("POST", "/api/v1/tools/servers"): lambda _: {"name": f"s-{new_id('mcp')[-8:]}", "url": NOWHERE, "allow": []},
    ("PUT", "/api/v1/tools/consents"): lambda things: {"server_id": things["server_id"]},
    ("POST", "/mcp"): {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    ("POST", "/api/v1/users/{user_id}/messages"): lambda things: {
        "conversation_id": things["conversation_id"],
        "content": "hi",
    },
}
"""Where the smallest body that the document allows does not do; some are made of what the path names."""

QUERIES = {("GET", "/api/v1/events"): "seconds=0"}
"""Where an answer would have no end."""

MORE: dict[tuple[str, str], set[int]] = {
    ("GET", "/api/v1/auth/userinfo"): {403},
    ("POST", "/api/v1/auth/password"): {401, 403},
    ("GET", "/api/v1/tools/consents"): {403},
    ("PUT", "/api/v1/tools/consents"): {403},
    ("DELETE", "/api/v1/tools/consents"): {403},
}
"""Routes that need more than a permission (such as a signed-in user), and how they refuse who has that alone."""

ENDS_ITS_TENANT = {
    ("POST", "/api/v1/admin/tenants/{tenant_id}/erase"),
    ("DELETE", "/api/v1/admin/tenants/{tenant_id}"),
    ("POST", "/api/v1/admin/tenants/{tenant_id}/rotate-keys"),
    ("POST", "/api/v1/keys/rotate"),
}
"""Asked in a tenant of its own each time."""

REFUSED: dict[tuple[str, str], int] = {
    ("GET", "/api/v1/auth/authorize"): 400,
    ("POST", "/api/v1/auth/authorize"): 400,
    ("POST", "/api/v1/auth/token"): 400,
    ("POST", "/api/v1/auth/revoke"): 400,
    ("POST", "/api/v1/auth/introspect"): 400,
    ("POST", "/api/v1/auth/refresh"): 401,
    ("POST", "/api/v1/channels/{channel_id}/inbound"): 401,
    ("POST", "/api/v1/widgets/{channel_id}/sessions"): 404,  # that channel is no widget
}
"""Public routes that need a credential of another kind, and how they refuse who has none; the others answer 200."""

READING = (Permission.CONVERSATIONS_READ, Permission.CONVERSATIONS_ANY)
SENDS_TEXTS = {("POST", "/api/v1/channels"), ("POST", "/api/v1/conversations/{conversation_id}/channels")}
"""Routes by which texts go elsewhere: they need `READING` too."""

CHOSEN = {("PUT", "/api/v1/catalog/products/{product_id}")}
"""Routes that make a thing under an id of the caller's choice: what another tenant calls so is another thing."""

LIMIT = 100_000  # requests a minute of a tenant that is limited
CUSTOM = "auditor"
CUSTOM_HAS = ("audit:read", "models:read", "conversations:read", "platform:usage", "no:such")


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    needs: Permission | None  # None: public

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def of(self, things: Things) -> str:
        path = self.path.replace(":path}", "}").replace("{name}", f"{{{self.named}}}")
        return path.format(**OF_ALL, **things)

    @property
    def named(self) -> str:
        """What a `name` in the path is the name of."""
        return NAMES.get(self.path, "name")

    @property
    def ends_its_tenant(self) -> bool:
        return (self.method, self.path) in ENDS_ITS_TENANT

    def lets_in(self, status: int) -> bool:
        """Whether somebody who has the permission is answered like this."""
        return status < 500 and status not in {401, 403} - MORE.get((self.method, self.path), set())

    @property
    def parameters(self) -> set[str]:
        found = (one.partition("}")[0].partition(":")[0] for one in self.path.split("{")[1:])
        return {self.named if one == "name" else one for one in found}


def every() -> Iterator[Asked]:
    class Settings:
        version = "1"

    class Parts:
        settings = Settings()
        sockets = None

    for method, path, named in routes(create_app(Parts())):  # type: ignore[arg-type]
        yield Asked(method, path, named[0] if named else None)


ALL = sorted(every(), key=str)
GUARDED = [one for one in ALL if one.needs is not None]


def past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


STRANGER = Ed25519PrivateKey.generate()


async def logged_out(brain: Whole) -> str:
    token = await brain.token(brain.own.id, "owner")
    answer = await brain.world.http.post("/api/v1/auth/logout", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    return token


async def revoked_by_its_id(brain: Whole) -> str:
    """Of no session, as a client's."""
    jti = new_id("tok")
    await brain.identity.sessions.end(brain.own.id, None, jti)
    return await brain.token(brain.own.id, "owner", sid=None, jti=jti)


async def of_an_ended_session(brain: Whole) -> str:
    user = brain.user(brain.own.id, role="owner")
    session, _ = await brain.session(brain.own.id, user)
    token = await brain.token(brain.own.id, "owner", sub=user, sid=session)
    await brain.call("DELETE", f"users/{user}/sessions/{session}", brain.own.id)
    return token


async def of_a_user_signed_out_everywhere(brain: Whole) -> str:
    user = brain.user(brain.own.id, role="owner")
    token = await brain.token(brain.own.id, "owner", sub=user, sid=None, iat=time.time() - 60)
    await brain.call("DELETE", f"users/{user}/sessions", brain.own.id)
    return token


async def of_a_removed_user(brain: Whole) -> str:
    user = brain.user(brain.own.id, role="owner")
    token = await brain.token(brain.own.id, "owner", sub=user)
    await brain.call("DELETE", f"users/{user}", brain.own.id)
    return token


async def of_a_removed_client(brain: Whole) -> str:
    body = {"name": "gone", "role": "owner"}
    client = (await brain.call("POST", "clients", brain.own.id, body))["id"]
    token = await brain.token(brain.own.id, "owner", sub=client, client_id=client, sid=None)
    await brain.call("DELETE", f"clients/{client}", brain.own.id)
    return token


async def of_a_retired_key(brain: Whole) -> str:
    """It counted until the key's time was over."""
    public, callers = jwk(STRANGER.public_key()), brain.identity.callers
    kid, until = (
        f"{PREFIX}{thumbprint(public)}",
        "UPDATE brain.signing_keys SET verifies_until = now() + %s WHERE id = %s",
    )
    brain.sql(
        "INSERT INTO brain.signing_keys (id, algorithm, public, sealed, signs_from, signs_until)"
        " VALUES (%s, %s, %s, '{}', '-infinity', now())",
        *(kid, ALGORITHM, json.dumps({**public, "kid": kid})),
    )
    token = await brain.token(brain.own.id, "owner", header={"kid": kid}, by=STRANGER)
    brain.sql(until, timedelta(hours=1), kid)
    await callers.load_keys()
    assert await callers.find(token) is not None
    brain.sql(until, timedelta(seconds=-1), kid)
    await callers.load_keys()
    return token


async def of_another_tenants_user(brain: Whole) -> str:
    return await brain.token(brain.own.id, "owner", tenant=brain.other.id)


async def a_refresh_token(brain: Whole) -> str:
    return (await brain.session(brain.own.id, brain.user(brain.own.id, role="owner")))[1]


def token(status: str = "active", at: str = "active", **changed: Any) -> "Bad":
    """An owner's token that differs from one that counts by this. `status`: the user's, `at`: the tenant's."""

    async def make(brain: Whole) -> str:
        of = brain.own.id if at == "active" else brain.tenant(at).id
        return f"Bearer {await brain.token(of, 'owner', status, **changed)}"

    return make


def bearer(make: Callable[[Whole], Awaitable[str]]) -> "Bad":
    async def header(brain: Whole) -> str:
        return f"Bearer {await make(brain)}"

    return header


def confused(spelling: str) -> "Bad":
    async def make(brain: Whole) -> str:
        secret = spellings(brain.signing)[spelling]
        return f"Bearer {await brain.token(brain.own.id, 'owner', header={'alg': 'HS256'}, by=secret)}"

    return make


def with_its_key_along(brain: Whole) -> Awaitable[str]:
    public = jwk(STRANGER.public_key())
    return brain.token(brain.own.id, "owner", header={"jwk": public, "kid": thumbprint(public)}, by=STRANGER)


Bad = Callable[[Whole], str | Awaitable[str] | None]
BAD: dict[str, Bad] = {
    "no credentials": lambda _: None,
    "an empty header": lambda _: "",
    "no key": lambda _: "Bearer",
    "another scheme": lambda brain: f"Basic {brain.key(brain.own.id, 'owner')}",
    "two keys": lambda brain: f"Bearer {KEY} {KEY}",
    "an unknown key": lambda _: f"Bearer brain_{'x' * 43}",
    "a key in other letters": lambda _: f"Bearer {KEY.upper()}",
    "a key too long": lambda _: f"Bearer {'x' * 9_000}",
    "not ASCII": lambda _: "Bearer schlüssel",
    "a revoked key": lambda brain: f"Bearer {brain.key(brain.own.id, 'owner', revoked_at=past())}",
    "an expired key": lambda brain: f"Bearer {brain.key(brain.own.id, 'owner', expires_at=past())}",
    "a key of a suspended tenant": lambda brain: f"Bearer {brain.key(brain.tenant('suspended').id, 'owner')}",
    "a key of a disabled user": lambda brain: (
        f"Bearer {brain.key(brain.own.id, 'owner', user=brain.user(brain.own.id, 'disabled'))}"
    ),
    "a key of a user that is gone": lambda brain: f"Bearer {brain.key(brain.own.id, 'owner', user='usr_' + '0' * 32)}",
    "a token without a signature": token(header={"alg": "none"}, by=b""),
    "a token without a signature that names no key": token(header={"alg": "none", "kid": None}, by=b""),
    "a token of another spelling of none": token(header={"alg": "nOnE"}, by=b""),
    "a token signed with nothing": token(by=b""),
    **{
        f"a token whose secret is the public key's {one}": confused(one)
        for one in ("PEM", "DER", "bytes", "x of its JSON")
    },
    "a token that another key signed": token(by=STRANGER),
    "a token of a key that nobody knows": token(by=STRANGER, header={"kid": "at-unknown"}),
    "a token that names no key": token(header={"kid": None}),
    "a token that brings its key along": bearer(with_its_key_along),
    "a token of a key that is retired": bearer(of_a_retired_key),
    "a token of another audience": token(aud="another"),
    "a token of many audiences": token(aud=["brain", "another"]),
    "a token of no audience": token(aud=None),
    "a token of another issuer": token(iss="https://evil.example"),
    "a token of no issuer": token(iss=None),
    "a token of another type": token(header={"typ": "JWT"}),
    "a token of no type": token(header={"typ": None}),
    "an identity token": token(header={"typ": "id_token+jwt"}),
    "an expired token": token(iat=time.time() - 7200, exp=int(time.time()) - 1),
    "a token without an end": token(exp=None),
    "a token of tomorrow": token(iat=time.time() + 86_400, exp=int(time.time()) + 90_000),
    "a token without an id": token(jti=None),
    "a token of another tenant's user": bearer(of_another_tenants_user),
    "a token that was signed out": bearer(logged_out),
    "a token that was revoked by its id": bearer(revoked_by_its_id),
    "a token of a session that was ended": bearer(of_an_ended_session),
    "a token of a user who signed out everywhere": bearer(of_a_user_signed_out_everywhere),
    "a token of a disabled user": token(status="disabled"),
    "a token of a user who is gone": bearer(of_a_removed_user),
    "a token of a client that is gone": bearer(of_a_removed_client),
    "a token of a suspended tenant": token(at="suspended"),
    "a token of a tenant that there is not": token(tenant=new_id("ten")),
    "a refresh token": bearer(a_refresh_token),
}
"""Each gives the whole header. Those that differ from a token that counts do so in this one thing."""


@pytest.fixture(scope="module")
def url(postgres_folder: Path) -> str:
    return make_database(postgres_folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    async with whole(url, tmp_path_factory.mktemp("whole"), redis_url) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(brain: Whole) -> dict[str, str | None]:
    found = {name: make(brain) for name, make in BAD.items()}
    made = {name: await one if inspect.isawaitable(one) else one for name, one in found.items()}
    assert brain.world.parts.watch is not None
    await brain.world.parts.watch.refresh()
    return made


Make = Callable[[], Awaitable[str]]


def callers_of(brain: Whole, tenant: str) -> dict[str, tuple[Make, frozenset[Permission]]]:
    """For each role a key, and an access token of a user who has just signed in; and what it may do."""
    brain.sql(
        "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, %s, %s)",
        *(tenant, CUSTOM, list(CUSTOM_HAS)),
    )

    kept: dict[tuple[str, str], str] = {}

    def key(role: str, scopes: Any = None) -> Make:
        async def same() -> str:
            place = role, str(scopes)
            kept[place] = kept.get(place) or brain.key(tenant, role, scopes)
            return kept[place]

        return same

    async def operators() -> str:
        return KEY

    made = {role: (key(role), permissions_of(role)) for role in GIVEN}
    made[OPERATOR] = (operators, permissions_of(OPERATOR))
    made[CUSTOM] = (key(CUSTOM), permissions_of(CUSTOM, CUSTOM_HAS))
    made["a role that is gone"] = (key("made-up"), frozenset())
    made["owner, no scopes"] = (key("owner", []), frozenset())
    made["owner, unknown scopes"] = (key("owner", ["no:such", "platform:models"]), frozenset())
    made["member, the owner's scopes"] = (key("member", permissions_of("owner")), permissions_of("member"))
    for role in (*GIVEN, CUSTOM, "made-up"):
        held = permissions_of(role, CUSTOM_HAS if role == CUSTOM else None)
        made[f"{role}, signed in"] = (partial(brain.token, tenant, role), held)
    scoped = partial(brain.token, tenant, "owner", scope="models:read platform:models")
    made["owner, signed in for models"] = (scoped, frozenset({Permission.MODELS_READ}))
    made["member, a token that says owner"] = (
        partial(brain.token, tenant, "member", role="owner"),
        permissions_of("member"),
    )
    return made


@pytest.fixture(scope="module")
def callers(brain: Whole) -> dict[str, tuple[Make, frozenset[Permission]]]:
    return callers_of(brain, brain.own.id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(brain: Whole) -> str:
    """A key without a permission, of a tenant that has limits."""
    tenant = brain.tenant().id
    body = {"settings": {"limits": {"requests_per_minute": LIMIT}}}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = await brain.world.http.patch(f"/api/v1/admin/tenants/{tenant}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return brain.key(tenant, "owner", [])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(brain: Whole) -> dict[str, Any]:
    return (await brain.world.http.get("/openapi.json")).json()  # type: ignore[no-any-return]


@pytest.fixture
def ask(brain: Whole, document: dict[str, Any]) -> Any:
    """Asks a route with the smallest body that it takes; `things` are the ids in its path."""

    async def call(route: Asked, header: str | None, things: dict[str, str], query: str = "") -> Any:
        body = BODIES.get((route.method, route.path))
        body = body(things) if callable(body) else body
        operation = document["paths"].get(route.path.replace(":path}", "}"), {}).get(route.method.lower(), {})
        content = body_of(operation, document) if body is None else json.dumps(body).encode()
        headers = {"authorization": "" if header is None else header.encode()}
        if (more := QUERIES.get((route.method, route.path))) is not None:
            query = f"{query}&{more}" if query else f"?{more}"
        path = route.of(things) + query
        request = brain.world.http.build_request(route.method, path, content=content, headers=headers)
        if header is None:
            del request.headers["authorization"]
        return await brain.world.http.send(request)

    return call


async def own_things(brain: Whole, route: Asked) -> Things:
    """Ids of the own tenant; fresh ones for what the route may remove or end."""
    own, things = brain.own.id, dict(brain.own.things)
    if route.method != "DELETE" and not route.path.endswith(("/end", "/regenerate", "/rotate", "/erase")):
        return things
    if "intent_id" in route.parameters:
        things |= await brain.intent(own)
    elif route.parameters & OF_A_USER:
        things |= await brain.conversation(own)
    elif "role" in route.parameters:
        things["role"] = await brain.role(own)
    elif "key_id" in route.parameters:
        things["key_id"] = brain.key_of(own)
    elif "client_id" in route.parameters:
        things["client_id"] = await brain.client(own)
    elif "user_id" in route.parameters:
        things["user_id"] = brain.user(own, role=things["role"])
        things["session_id"], _ = await brain.session(own, things["user_id"])
    elif "product_id" in route.parameters:
        things["product_id"] = await brain.product(own)
    elif "name" in route.parameters or "provider" in route.parameters:
        await brain.provider()
    return things


def test_there_is_no_other_way_in_than_the_routes_that_are_asked_here() -> None:
    class Settings:
        version = "1"

    class Parts:
        settings = Settings()
        sockets = None

    def of(found: Any) -> Iterator[Any]:
        for route in found:
            included = getattr(route, "original_router", None)
            yield from (route,) if included is None else of(included.routes)

    app = create_app(Parts())  # type: ignore[arg-type]
    others = {route.path for route in of(app.routes) if not isinstance(route, APIRoute)}
    widget = {"/widget.js", "/widget/assets/{name}", "/widget/{channel_id}"}  # files, and a page that holds nothing
    assert others == {"/openapi.json", "/docs", "/docs/{name}", *widget}
    parameters = {one for route in ALL for one in route.parameters}
    assert parameters <= OF_A_TENANT | OF_ALL.keys(), "say whose this parameter is"
    assert len(GUARDED) >= 60


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_without_a_credential_that_counts_there_is_nothing_to_be_had(
    route: Asked, ask: Any, brain: Whole, bad: dict[str, str | None]
) -> None:
    wrong = []
    for name, header in bad.items():
        answer = await ask(route, header, brain.own.things)
        error = answer.json().get("error", {})
        if (answer.status_code, error.get("type")) != (401, "authentication_error"):
            wrong.append((name, answer.status_code, answer.text[:200]))
        elif not answer.headers.get("www-authenticate", "").startswith("Bearer"):
            wrong.append((name, "does not say how to sign in"))
    assert wrong == []


UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_no_credential_that_does_not_count_opens_a_websocket(brain: Whole, bad: dict[str, str | None]) -> None:
    """Without one it opens, and ends at the first frame that does not bring one."""
    assert brain.world.parts.sockets is not None
    for name, header in bad.items():
        if not header:
            continue
        headers = {**UPGRADE, "authorization": header.encode()}
        answer = await brain.world.http.get("/api/v1/ws", headers=headers)
        assert answer.status_code == 401 or (answer.status_code == 400 and len(header) > 8192), (name, answer.text)
    assert not [one for one in brain.world.parts.sockets.open if one.caller is not None]


@pytest.mark.parametrize("route", [one for one in ALL if one.needs is None], ids=str)
async def test_what_is_public_is_public(
    route: Asked, ask: Any, bad: dict[str, str | None], brain: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential that does not count is no reason to refuse what needs none."""
    monkeypatch.setattr(unsigned, "BY_BOTH", 1000)  # nothing of this is signed
    assert (route.method, route.path) in PUBLIC
    expected = REFUSED.get((route.method, route.path), 200)
    for name, header in bad.items():
        answer = await ask(route, header, brain.own.things)
        assert answer.status_code == expected, (name, answer.text)


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_each_role_may_what_its_permissions_say(
    route: Asked, ask: Any, brain: Whole, callers: dict[str, tuple[Make, frozenset[Permission]]]
) -> None:
    wrong = []
    for role in callers:
        make, may = callers[role]
        allowed = route.needs in may
        if allowed and route.ends_its_tenant:
            tenant = brain.tenant().id
            make, things = callers_of(brain, tenant)[role][0], {"tenant_id": tenant}
        else:
            things = await own_things(brain, route) if allowed else brain.own.things
        answer = await ask(route, f"Bearer {await make()}", things)
        if not (route.lets_in(answer.status_code) if allowed else answer.status_code == 403):
            wrong.append((role, allowed, answer.status_code, answer.text[:200]))
    assert wrong == []


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_a_scope_takes_away_what_it_does_not_name(route: Asked, ask: Any, brain: Whole) -> None:
    assert route.needs is not None
    rest = [one for one in Permission if one is not route.needs]
    without = await ask(route, f"Bearer {brain.key(brain.own.id, 'owner', rest)}", brain.own.things)
    assert without.status_code == 403, without.text
    assert route.needs.beyond_tenant or route.needs.value in without.json()["error"]["message"]
    if not route.needs.beyond_tenant:
        tenant = brain.tenant().id if route.ends_its_tenant else brain.own.id
        things = {"tenant_id": tenant} if route.ends_its_tenant else await own_things(brain, route)
        scopes = [route.needs, *(READING if (route.method, route.path) in SENDS_TEXTS else ())]
        alone = await ask(route, f"Bearer {brain.key(tenant, 'owner', scopes)}", things)
        assert route.lets_in(alone.status_code), alone.text


@pytest.mark.parametrize(
    "route",
    [one for one in GUARDED if one.parameters & OF_A_TENANT and (one.method, one.path) not in CHOSEN],
    ids=str,
)
async def test_what_another_tenant_has_is_unknown(route: Asked, ask: Any, brain: Whole) -> None:
    """Each id of the path in turn; and an id that nobody has is answered in the same words."""
    assert route.needs is not None
    owner = KEY if route.needs.beyond_tenant else brain.key(brain.own.id, "owner")
    for parameter in route.parameters & OF_A_TENANT:
        if route.needs.beyond_tenant and parameter == "tenant_id":
            continue  # the operator's routes are for all tenants
        theirs = await ask(route, f"Bearer {owner}", {**brain.own.things, parameter: brain.other.things[parameter]})
        assert theirs.status_code == 404, theirs.text
        nobodys = f"{brain.other.things[parameter].partition('_')[0]}_{'0' * 12}7{'0' * 3}8{'0' * 15}"
        unknown = await ask(route, f"Bearer {owner}", {**brain.own.things, parameter: nobodys})
        assert (unknown.status_code, unknown.json()) == (404, theirs.json())
        still = await ask(
            Asked("GET", "/api/v1/conversations/{conversation_id}", None),
            brain.owner_of(brain.other.id)["authorization"],
            brain.other.things,
        )
        assert still.status_code == 200 and still.json()["message_count"] == 2, "nothing of theirs was touched"


@pytest.mark.parametrize("route", [one for one in GUARDED if one.parameters & OF_A_USER], ids=str)
async def test_what_another_user_of_the_tenant_has_is_unknown(route: Asked, ask: Any, brain: Whole) -> None:
    assert route.needs is not None
    member = 404 if route.needs in permissions_of("member") else 403
    for credential, expected in (
        (brain.key(brain.own.id, "member", user=brain.user(brain.own.id)), member),
        (await brain.token(brain.own.id, "member"), member),
        (await brain.token(brain.own.id, "owner", scope=route.needs.value), 404),
    ):
        answer = await ask(route, f"Bearer {credential}", brain.own.things)
        assert answer.status_code == expected, answer.text


@pytest.mark.parametrize("role", GIVEN)
async def test_who_has_signed_in_reaches_others_conversations_only_where_the_role_says_so(
    role: str, ask: Any, brain: Whole
) -> None:
    route = Asked("GET", "/api/v1/conversations/{conversation_id}", None)
    answer = await ask(route, f"Bearer {await brain.token(brain.own.id, role)}", brain.own.things)
    assert answer.status_code == (200 if Permission.CONVERSATIONS_ANY in permissions_of(role) else 404), answer.text
    user = brain.user(brain.own.id, role=role)
    header = f"Bearer {await brain.token(brain.own.id, role, sub=user)}"
    own = await ask(route, header, await brain.conversation(brain.own.id, user))
    assert own.status_code == 200, own.text


OWN = {Permission.USERS_READ, Permission.USERS_MANAGE}
SELF = [one for one in GUARDED if one.path.startswith("/api/v1/users/{user_id}") and one.needs in OWN]


@pytest.mark.parametrize("route", SELF, ids=str)
async def test_of_users_each_may_reach_itself(route: Asked, ask: Any, brain: Whole) -> None:
    """The role `member` may neither read nor manage users."""
    user, another = brain.user(brain.own.id), brain.user(brain.own.id)
    things = {"user_id": user, "session_id": (await brain.session(brain.own.id, user))[0]}
    theirs = {"user_id": another, "session_id": (await brain.session(brain.own.id, another))[0]}
    header = f"Bearer {await brain.token(brain.own.id, 'member', sub=user)}"
    assert (await ask(route, header, theirs)).status_code == 403
    answer = await ask(route, header, things)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "route",
    [one for one in GUARDED if one.method == "GET" and not one.needs.beyond_tenant],  # type: ignore[union-attr]
    ids=str,
)
async def test_no_query_reaches_another_tenant(route: Asked, ask: Any, brain: Whole) -> None:
    """What an answer holds of another tenant is nothing, whatever ids of its things stand in the query."""
    owner = brain.owner_of(brain.own.id)["authorization"]
    things = brain.other.things
    for query in (
        f"?tenant_id={brain.other.id}",
        f"?user_id={things['user_id']}",
        f"?after={things['conversation_id']}",
        f"?after={things['message_id']}",
        f"?conversation_id={things['conversation_id']}&q=parcel&intent=parcel",
    ):
        answer = await ask(route, owner, brain.own.things, query)
        assert answer.status_code < 500, answer.text
        if answer.status_code == 200:
            told = answer.text
            assert not [one for one in (*things.values(), brain.other.id) if one in told], (query, told)


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_each_route_takes_of_its_callers_limits(route: Asked, ask: Any, brain: Whole, limited: str) -> None:
    answer = await ask(route, f"Bearer {limited}", brain.other.things)
    assert answer.headers["x-ratelimit-limit-requests"] == str(LIMIT), answer.text


async def test_a_suspended_tenants_key_is_refused_at_once_also_where_it_is_remembered(brain: Whole, ask: Any) -> None:
    tenant = brain.tenant()
    header = f"Bearer {brain.key(tenant.id, 'owner')}"
    route = Asked("GET", "/api/v1/conversations", None)
    watch = brain.world.parts.watch
    assert watch is not None
    await watch.refresh()
    assert (await ask(route, header, {})).status_code == 200
    brain.sql("SELECT brain.change_tenant(%s, NULL, 'suspended', NULL)", tenant.id)
    await watch.refresh()
    assert (await ask(route, header, {})).status_code == 401
