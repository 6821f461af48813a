"""Every route, asked by whoever should not get in, by each role, and for what belongs to others.

The expected status follows from the permission that the route names, so a new route is asked as soon as it is there.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from domain.permissions import GIVEN, OPERATOR, Permission, permissions_of
from serve_app.ingress.app import create_app
from tests.conftest import make_database
from tests.unit.ingress_world import KEY
from tests.unit.test_permissions import PUBLIC, routes
from tests.unit.whole_world import Whole, body_of, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

OF_A_TENANT = {"conversation_id", "message_id", "turn_id", "intent_id", "training_id", "tenant_id", "user_id"}
OF_A_USER = {"conversation_id", "message_id", "turn_id"}
OF_ALL = {"model_id": "small", "name": "mine", "provider": "mine"}
"""Parameters of paths: ids of what a tenant has, of what a user has, and names that mean the same to everybody.

A new parameter stands in one of them: where it is a tenant's, `whole_world.Tenant.things` needs one of each.
"""

BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/api/v1/admin/models/providers/{name}"): {"base_url": "http://127.0.0.1:9/v1", "models": []},
    ("PUT", "/api/v1/admin/models/{provider}/{model_id:path}"): {"context_tokens": 4096},
    ("PATCH", "/api/v1/conversations/{conversation_id}"): {"title": "another"},
    ("POST", "/api/v1/intents/rollback"): {"version": 0},
}
"""Where the smallest body that the document allows does not do."""

MORE: dict[tuple[str, str], set[int]] = {}
"""Routes that need more than a permission (such as a signed-in user), and how they refuse who has that alone."""

CUSTOM = "auditor"
CUSTOM_HAS = ("audit:read", "models:read", "conversations:read", "platform:usage", "no:such")


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    needs: Permission | None  # None: public

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def of(self, things: dict[str, str]) -> str:
        path = self.path.replace(":path}", "}")
        return path.format(**OF_ALL, **things)

    def lets_in(self, status: int) -> bool:
        """Whether somebody who has the permission is answered like this."""
        return status < 500 and status not in {401, 403} - MORE.get((self.method, self.path), set())

    @property
    def parameters(self) -> set[str]:
        return {one.partition("}")[0].partition(":")[0] for one in self.path.split("{")[1:]}


def every() -> Iterator[Asked]:
    class Settings:
        version = "1"

    class Parts:
        settings = Settings()

    for method, path, named in routes(create_app(Parts())):  # type: ignore[arg-type]
        yield Asked(method, path, named[0] if named else None)


ALL = sorted(every(), key=str)
GUARDED = [one for one in ALL if one.needs is not None]


def past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def _jwt(head: dict[str, Any], signature: str = "") -> str:
    claims = {"iss": "brain", "aud": "brain", "sub": "usr_0", "tenant": "ten_0", "role": "owner", "exp": 9_999_999_999}
    pieces = (base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (head, claims))
    return ".".join((*pieces, signature))


Bad = Callable[[Whole], str | None]
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
    "a token without a signature": lambda _: f"Bearer {_jwt({'alg': 'none', 'typ': 'at+jwt'})}",
    "a token of another spelling of none": lambda _: f"Bearer {_jwt({'alg': 'nOnE', 'typ': 'at+jwt'})}",
    "a token signed with nothing": lambda _: f"Bearer {_jwt({'alg': 'HS256', 'typ': 'at+jwt'}, 'AAAA')}",
    # ACCESS TOKENS: here stand those that a signing key is needed for, once the world has one: of another audience, of
    # another issuer, expired, of a revoked `jti`, of a session that was ended, signed by a key that is retired, and
    # with the public key as an HMAC's secret (key confusion). Each gives the whole header.
}


@pytest.fixture(scope="module")
def url(postgres_folder: Path) -> str:
    return make_database(postgres_folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    async with whole(url, tmp_path_factory.mktemp("whole")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(brain: Whole) -> dict[str, str | None]:
    return {name: make(brain) for name, make in BAD.items()}


@pytest.fixture(scope="module")
def keys(brain: Whole) -> dict[str, tuple[str, frozenset[Permission]]]:
    """For each role a key, and what it may do."""
    brain.sql(
        "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, %s, %s)",
        *(brain.own.id, CUSTOM, list(CUSTOM_HAS)),
    )
    made = {role: (brain.key(brain.own.id, role), permissions_of(role)) for role in GIVEN}
    made[OPERATOR] = (KEY, permissions_of(OPERATOR))
    made[CUSTOM] = (brain.key(brain.own.id, CUSTOM), permissions_of(CUSTOM, CUSTOM_HAS))
    made["a role that is gone"] = (brain.key(brain.own.id, "made-up"), frozenset())
    made["owner, no scopes"] = (brain.key(brain.own.id, "owner", []), frozenset())
    made["owner, unknown scopes"] = (brain.key(brain.own.id, "owner", ["no:such", "platform:models"]), frozenset())
    made["member, the owner's scopes"] = (
        brain.key(brain.own.id, "member", permissions_of("owner")),
        permissions_of("member"),
    )
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(brain: Whole) -> dict[str, Any]:
    return (await brain.world.http.get("/openapi.json")).json()  # type: ignore[no-any-return]


@pytest.fixture
def ask(brain: Whole, document: dict[str, Any]) -> Any:
    """Asks a route with the smallest body that it takes; `things` are the ids in its path."""

    async def call(route: Asked, header: str | None, things: dict[str, str], query: str = "") -> Any:
        body = BODIES.get((route.method, route.path))
        operation = document["paths"].get(route.path.replace(":path}", "}"), {}).get(route.method.lower(), {})
        content = body_of(operation, document) if body is None else json.dumps(body).encode()
        headers = {"authorization": "" if header is None else header.encode()}
        path = route.of(things) + query
        request = brain.world.http.build_request(route.method, path, content=content, headers=headers)
        if header is None:
            del request.headers["authorization"]
        return await brain.world.http.send(request)

    return call


async def own_things(brain: Whole, route: Asked) -> dict[str, str]:
    """Ids of the own tenant; fresh ones for what the route may remove or end."""
    things = dict(brain.own.things)
    if route.method == "DELETE" or route.path.endswith(("/end", "/regenerate")):
        if "intent_id" in route.parameters:
            things |= await brain.intent(brain.own.id)
        elif route.parameters & OF_A_USER:
            things |= await brain.conversation(brain.own.id)
        elif "name" in route.parameters or "provider" in route.parameters:
            await brain.provider()
    return things


def test_there_is_no_other_way_in_than_the_routes_that_are_asked_here() -> None:
    class Settings:
        version = "1"

    class Parts:
        settings = Settings()

    def of(found: Any) -> Iterator[Any]:
        for route in found:
            included = getattr(route, "original_router", None)
            yield from (route,) if included is None else of(included.routes)

    app = create_app(Parts())  # type: ignore[arg-type]
    others = {route.path for route in of(app.routes) if not isinstance(route, APIRoute)}
    assert others == {"/openapi.json", "/docs", "/docs/{name}"}
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


@pytest.mark.parametrize("route", [one for one in ALL if one.needs is None], ids=str)
async def test_what_is_public_is_public(route: Asked, ask: Any, bad: dict[str, str | None]) -> None:
    """A credential that does not count is no reason to refuse what needs none."""
    assert (route.method, route.path) in PUBLIC
    without = await ask(route, None, {})
    assert without.status_code < 500 and (route.method != "GET" or without.status_code == 200)
    for name, header in bad.items():
        answer = await ask(route, header, {})
        assert answer.status_code == without.status_code or (route.method != "GET" and answer.status_code < 500), name


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_each_role_may_what_its_permissions_say(
    route: Asked, ask: Any, brain: Whole, keys: dict[str, tuple[str, frozenset[Permission]]]
) -> None:
    wrong = []
    for role, (key, may) in keys.items():
        allowed = route.needs in may
        things = await own_things(brain, route) if allowed else brain.own.things
        answer = await ask(route, f"Bearer {key}", things)
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
        things = await own_things(brain, route)
        alone = await ask(route, f"Bearer {brain.key(brain.own.id, 'owner', [route.needs])}", things)
        assert route.lets_in(alone.status_code), alone.text


@pytest.mark.parametrize("route", [one for one in GUARDED if one.parameters & OF_A_TENANT], ids=str)
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
    member = brain.key(brain.own.id, "member", user=brain.user(brain.own.id))
    answer = await ask(route, f"Bearer {member}", brain.own.things)
    assert answer.status_code == 404, answer.text


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
