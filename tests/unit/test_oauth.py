"""OAuth 2: who gets a token by which grant, and everything that must not give one."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import psycopg
import pytest

from domain.ids import new_id
from serve_app.ingress.oauth import challenge_of
from tests.unit.users_world import PASSWORD, People, people

BACK = "https://app.example/back?from=brain"


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def service(brain: People, **fields: Any) -> dict[str, Any]:
    return dict(await brain.call("POST", "clients", {"name": "batch", **fields}, "admin", 201))


async def app(brain: People, **fields: Any) -> dict[str, Any]:
    body = {"name": "App", "confidential": False, "grants": ["authorization_code"], "redirect_uris": [BACK], **fields}
    return dict(await brain.call("POST", "clients", body, "admin", 201))


async def post(brain: People, path: str, form: Any, client: Any = None, headers: Any = None) -> httpx.Response:
    """A form from a client: by HTTP Basic where it has a secret."""
    auth = (client["id"], client["client_secret"]) if client is not None and client["client_secret"] else None
    if client is not None and auth is None:
        form = {"client_id": client["id"], **form}
    body = urlencode(form)
    headers = {"authorization": "", "content-type": "application/x-www-form-urlencoded", **(headers or {})}
    request = brain.world.http.build_request("POST", f"/api/v1/auth/{path}", content=body, headers=headers)
    if not headers["authorization"]:
        del request.headers["authorization"]
    return await brain.world.http.send(request, auth=auth)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"]


@dataclass
class Flow:
    """One sign-in through a client, with a verifier of its own."""

    client: dict[str, Any]
    user: dict[str, Any]
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8) + "&=\"'<")

    def asked(self, **fields: Any) -> dict[str, str]:
        found = {
            "response_type": "code",
            "client_id": self.client["id"],
            "redirect_uri": BACK,
            "state": self.state,
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
            **fields,
        }
        return {name: value for name, value in found.items() if value is not None}

    async def page(self, brain: People, **fields: Any) -> httpx.Response:
        return await brain.ask("GET", "auth/authorize?" + urlencode(self.asked(**fields)), as_=None)

    async def decide(self, brain: People, password: str = PASSWORD, **fields: Any) -> httpx.Response:
        form = {**self.asked(**fields), "email": self.user["email"], "password": password}
        return await post(brain, "authorize", {"decision": "allow", **form})

    async def code(self, brain: People, **fields: Any) -> str:
        return back(await self.decide(brain, **fields))["code"]

    def exchange(self, code: str) -> dict[str, Any]:
        return {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": self.verifier}


def back(answer: httpx.Response) -> dict[str, str]:
    """What a redirect to the client tells."""
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["location"])
    told = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (f"{url.scheme}://{url.netloc}{url.path}", told.pop("from")) == ("https://app.example/back", "brain")
    assert told["iss"] == "https://brain.example"
    return told


async def flow(brain: People, **fields: Any) -> Flow:
    return Flow(await app(brain, **fields), await brain.user())


# Clients.


async def test_a_client_shows_its_secret_once_and_may_no_more_than_its_maker(brain: People) -> None:
    headers = {"idempotency-key": new_id("req")}
    first = await brain.ask("POST", "clients", {"name": "x"}, headers=headers)
    again = await brain.ask("POST", "clients", {"name": "x"}, headers=headers)
    made = first.json()
    assert made == again.json() and again.headers["idempotent-replayed"] == "true"
    assert made["client_secret"].startswith("bcs_") and (made["role"], made["confidential"]) == ("service", True)
    shown = await brain.call("GET", f"clients/{made['id']}")
    assert "client_secret" not in shown and shown["id"] == made["id"]
    assert [one["id"] for one in (await brain.call("GET", "clients"))["data"]] == [made["id"]]
    with psycopg.connect(brain.database_url) as connection:
        (row,) = connection.execute("SELECT c::text FROM brain.clients c WHERE id = %s", (made["id"],)).fetchall()
    assert made["client_secret"] not in row[0]
    await brain.call("POST", "clients", {"name": "x", "role": "owner"}, "admin", 403)
    await brain.call("POST", "clients", {"name": "x", "role": "operator"}, "owner", 422)
    await brain.call("POST", "clients", {"name": "x"}, "member", 403)
    for method in ("GET", "DELETE"):
        await brain.call(method, f"clients/{made['id']}", as_="stranger", status=404)
    assert brain.audited(made["id"]) == ["client.create"]


@pytest.mark.parametrize(
    "fields",
    [
        {"confidential": False},
        {"grants": ["password"]},
        {"grants": ["implicit"]},
        {"grants": []},
        {"grants": ["authorization_code"]},
        {"redirect_uris": [BACK]},
        {"scopes": ["models:fly"]},
        {"scopes": ["platform:tenants"]},
        *(
            {"grants": ["authorization_code"], "redirect_uris": [uri]}
            for uri in (
                *("http://app.example/", "https://app.example/#x", "javascript:alert(1)", "data:text/html,x", "/back"),
                *(
                    "https://",
                    "https://u:p@app.example/",
                    "https://app.example/a b",
                    "https://app.example\\@evil/",
                    "x",
                ),
            )
        ),
    ],
)
async def test_a_client_that_should_not_be_is_refused(brain: People, fields: dict[str, Any]) -> None:
    await brain.call("POST", "clients", {"name": "x", **fields}, "admin", 422)


# Client credentials.


async def test_a_client_acts_with_its_role_within_its_scopes(brain: People) -> None:
    client = await service(brain, role="agent", scopes=["conversations:read", "conversations:any", "users:read"])
    answer = await post(brain, "token", {"grant_type": "client_credentials"}, client)
    told = answer.json()
    assert answer.headers["cache-control"] == "no-store" and "refresh_token" not in told
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 900)
    assert told["scope"] == "conversations:read conversations:any users:read"
    await brain.call("GET", "users", as_=told["access_token"])
    await brain.call("GET", "models", as_=told["access_token"], status=403)
    await brain.call("GET", "auth/userinfo", as_=told["access_token"], status=403)
    form = {"grant_type": "client_credentials", "scope": "users:read"}
    narrow = (await post(brain, "token", form, client)).json()
    await brain.call("GET", "conversations", as_=narrow["access_token"], status=403)
    for scope in ("models:read", "users:read models:read", "nothing", " "):
        assert error_of(await post(brain, "token", {**form, "scope": scope}, client)) == (400, "invalid_scope")
    await brain.call("DELETE", f"clients/{client['id']}")
    await brain.call("GET", "users", as_=told["access_token"], status=401)
    assert error_of(await post(brain, "token", form, client)) == (401, "invalid_client")


async def test_a_client_is_known_by_its_secret_sent_in_one_way(brain: People) -> None:
    client, other = await service(brain), await service(brain)
    form = {"grant_type": "client_credentials"}
    named = {"client_id": client["id"], "client_secret": client["client_secret"]}
    assert (await post(brain, "token", {**form, **named})).status_code == 200
    wrong = await post(brain, "token", form, {**client, "client_secret": other["client_secret"]})
    assert error_of(wrong) == (401, "invalid_client") and wrong.headers["www-authenticate"].startswith("Basic")
    for fields in ({}, {"client_id": client["id"]}, {**named, "client_secret": "x"}, {**named, "client_id": "cli_1"}):
        answer = await post(brain, "token", {**form, **fields})
        assert error_of(answer) in ((401, "invalid_client"), (400, "invalid_request"))
    assert error_of(await post(brain, "token", {**form, **named}, client)) == (400, "invalid_request")
    assert error_of(await post(brain, "token", form, headers={"authorization": "Basic ???"})) == (401, "invalid_client")


async def test_secrets_cannot_be_tried_by_the_thousand(brain: People) -> None:
    client = await service(brain)
    wrong = {**client, "client_secret": "x"}
    form = {"grant_type": "client_credentials"}
    answers = await asyncio.gather(*(post(brain, "token", form, wrong) for _ in range(40)))
    assert sorted({answer.status_code for answer in answers}) == [401, 429]


@pytest.mark.parametrize("grant", ["password", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer", "x"])
async def test_there_are_no_other_grants(brain: People, grant: str) -> None:
    form = {"grant_type": grant, "username": "a", "password": PASSWORD}
    assert error_of(await post(brain, "token", form, await service(brain))) == (400, "unsupported_grant_type")


async def test_a_form_that_cannot_be_meant_is_refused(brain: People) -> None:
    client = await service(brain)
    assert error_of(await post(brain, "token", {}, client)) == (400, "invalid_request")
    twice = [("grant_type", "client_credentials"), ("grant_type", "client_credentials")]
    assert error_of(await post(brain, "token", twice, client)) == (400, "invalid_request")
    as_json = await post(brain, "token", {}, client, {"content-type": "application/json"})
    assert error_of(as_json) == (400, "invalid_request")
    nul = {"grant_type": "client_credentials", "scope": "\0"}
    assert error_of(await post(brain, "token", nul, client)) == (400, "invalid_request")


# Authorization code.


async def test_a_user_signs_in_and_consents_and_the_client_gets_tokens(brain: People) -> None:
    one = await flow(brain)
    page = await one.page(brain)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "https://app.example" in policy
    assert (page.headers["x-frame-options"], page.headers["cache-control"]) == ("DENY", "no-store")
    told = back(await one.decide(brain))
    assert told["state"] == one.state
    answer = await post(brain, "token", one.exchange(told["code"]), one.client)
    tokens = answer.json()
    me = await brain.call("GET", "auth/userinfo", as_=tokens["access_token"])
    assert (me["sub"], me["email"], me["tenant"]) == (one.user["id"], one.user["email"], brain.tenant)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    fresh = (await post(brain, "token", form, one.client)).json()
    await brain.call("GET", "users/me", as_=fresh["access_token"])
    assert error_of(await post(brain, "token", form, one.client)) == (400, "invalid_grant")
    await brain.call("GET", "users/me", as_=fresh["access_token"], status=401)


async def test_a_code_counts_once_and_its_reuse_ends_what_it_gave(brain: People) -> None:
    one = await flow(brain)
    code = await one.code(brain)
    first = (await post(brain, "token", one.exchange(code), one.client)).json()
    assert error_of(await post(brain, "token", one.exchange(code), one.client)) == (400, "invalid_grant")
    await asyncio.wait_for(_refused(brain, first["access_token"]), 5)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    assert error_of(await post(brain, "token", form, one.client)) == (400, "invalid_grant")


async def _refused(brain: People, token: str) -> None:
    while (await brain.ask("GET", "users/me", as_=token)).status_code != 401:
        await brain.watch.refresh()


@pytest.mark.parametrize(
    "fields",
    [
        {"code_verifier": "a" * 43},
        {"code_verifier": None},
        {"code_verifier": "short"},
        {"redirect_uri": "https://app.example/back"},
        {"redirect_uri": None},
        {"code": "bac_" + "a" * 43},
        {"code": None},
    ],
)
async def test_a_code_goes_with_its_verifier_and_its_address(brain: People, fields: dict[str, Any]) -> None:
    one = await flow(brain)
    form = {**one.exchange(await one.code(brain)), **fields}
    answer = await post(brain, "token", {name: value for name, value in form.items() if value is not None}, one.client)
    assert error_of(answer) in ((400, "invalid_grant"), (400, "invalid_request"))


async def test_a_code_is_one_clients_and_expires(brain: People) -> None:
    one = await flow(brain)
    other = Flow(await app(brain), one.user, one.verifier)
    code = await one.code(brain)
    assert error_of(await post(brain, "token", one.exchange(code), other.client)) == (400, "invalid_grant")
    with psycopg.connect(brain.database_url) as connection:
        rows = connection.execute(
            "UPDATE brain.auth_codes SET expires_at = now() WHERE client_id = %s", (one.client["id"],)
        )
        assert rows.rowcount == 1
    assert error_of(await post(brain, "token", one.exchange(code), one.client)) == (400, "invalid_grant")


async def test_of_two_uses_at_once_of_one_code_at_most_one_counts(brain: People) -> None:
    one = await flow(brain)
    code = await one.code(brain)
    answers = await asyncio.gather(*(post(brain, "token", one.exchange(code), one.client) for _ in range(4)))
    assert [answer.status_code for answer in answers].count(200) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/back",
        "https://app.example/back?from=brain&x=1",
        "https://app.example/back?from=brain#x",
        "https://APP.example/back?from=brain",
        "https://app.example.evil/back?from=brain",
        "https://evil.example/",
        "//evil.example/",
        "",
        None,
    ],
)
async def test_nothing_is_sent_to_an_address_that_was_not_registered(brain: People, uri: str | None) -> None:
    one = await flow(brain)
    for answer in (await one.page(brain, redirect_uri=uri), await one.decide(brain, redirect_uri=uri)):
        assert answer.status_code == 400 and "location" not in answer.headers
        assert "evil" not in answer.text


@pytest.mark.parametrize("client_id", ["cli_1", None, "cli_" + "0" * 32, "<script>"])
async def test_an_unknown_client_leads_nowhere(brain: People, client_id: str | None) -> None:
    one = await flow(brain)
    answer = await one.page(brain, client_id=client_id)
    assert answer.status_code == 400 and "location" not in answer.headers and "<script>" not in answer.text


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "x"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": "models:fly"}, "invalid_scope"),
        ({"scope": "platform:tenants"}, "invalid_scope"),
        ({"scope": "x" * 3000}, "invalid_request"),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_to_the_client(
    brain: People, fields: dict[str, Any], error: str
) -> None:
    one = await flow(brain)
    for answer in (await one.page(brain, **fields), await one.decide(brain, **fields)):
        told = back(answer)
        assert (told["error"], told["state"]) == (error, one.state) and "code" not in told


async def test_who_refuses_or_does_not_know_the_password_gives_nothing(brain: People) -> None:
    one, stranger = await flow(brain), {"email": "x@example.com"}
    assert back(await one.decide(brain, decision="deny"))["error"] == "access_denied"
    wrong = await one.decide(brain, password="wrong")
    unknown = await Flow(one.client, stranger, one.verifier, one.state).decide(brain, password="wrong")
    for answer in (wrong, unknown):
        assert answer.status_code == 401 and "location" not in answer.headers
    told = {re.sub(r'nonce-[^"\']*|nonce="[^"]*"|value="[^"]*@[^"]*"', "", answer.text) for answer in (wrong, unknown)}
    assert len(told) == 1, "the same page for both"
    for _ in range(9):
        await one.decide(brain, password="wrong")
    late = await one.decide(brain)
    assert late.status_code == 429 and int(late.headers["retry-after"]) > 0


async def test_what_a_page_repeats_is_never_markup(brain: People) -> None:
    one = await flow(brain, name="<b>App</b>")
    one.state = '"><script>alert(1)</script>'
    for answer in (await one.page(brain), await one.decide(brain, password="wrong")):
        assert "<script" not in answer.text and "<b>" not in answer.text


async def test_what_a_user_grants_is_what_the_page_names(brain: People) -> None:
    one = await flow(brain, scopes=["users:self", "models:read"])
    page = await one.page(brain, scope="users:self")
    assert "users:self" in page.text and "models:read" not in page.text
    code = await one.code(brain, scope="users:self")
    tokens = (await post(brain, "token", one.exchange(code), one.client)).json()
    assert tokens["scope"] == "users:self"
    await brain.call("GET", "users/me", as_=tokens["access_token"])
    await brain.call("GET", "models", as_=tokens["access_token"], status=403)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    wider = await post(brain, "token", {**form, "scope": "users:self models:read"}, one.client)
    assert error_of(wider) == (400, "invalid_scope")
    assert (await post(brain, "token", form, one.client)).json()["scope"] == "users:self"


async def test_a_refresh_token_is_one_clients(brain: People) -> None:
    one = await flow(brain)
    tokens = (await post(brain, "token", one.exchange(await one.code(brain)), one.client)).json()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert error_of(await post(brain, "token", form, await app(brain))) == (400, "invalid_grant")
    await brain.call("POST", "auth/refresh", {"refresh_token": tokens["refresh_token"]}, None, 401)
    assert (await post(brain, "token", form, one.client)).status_code == 200


async def test_a_client_that_is_removed_takes_its_sign_ins_along(brain: People) -> None:
    one = await flow(brain)
    tokens = (await post(brain, "token", one.exchange(await one.code(brain)), one.client)).json()
    await brain.call("GET", "users/me", as_=tokens["access_token"])
    await brain.call("DELETE", f"clients/{one.client['id']}")
    await brain.call("GET", "users/me", as_=tokens["access_token"], status=401)


# Revocation, introspection, metadata.


async def test_a_client_revokes_its_own_tokens_alone(brain: People) -> None:
    one, other = await flow(brain), await app(brain)
    tokens = (await post(brain, "token", one.exchange(await one.code(brain)), one.client)).json()
    for token in (tokens["access_token"], tokens["refresh_token"], "x"):
        assert (await post(brain, "revoke", {"token": token}, other)).status_code == 200
    await brain.call("GET", "users/me", as_=tokens["access_token"])
    assert (await post(brain, "revoke", {"token": tokens["refresh_token"]}, one.client)).status_code == 200
    await brain.call("GET", "users/me", as_=tokens["access_token"], status=401)
    client = await service(brain)
    token = (await post(brain, "token", {"grant_type": "client_credentials"}, client)).json()["access_token"]
    await brain.call("GET", "models", as_=token)
    await post(brain, "revoke", {"token": token}, client)
    await brain.call("GET", "models", as_=token, status=401)
    assert error_of(await post(brain, "revoke", {}, client)) == (400, "invalid_request")
    assert error_of(await post(brain, "revoke", {"token": token})) == (400, "invalid_request")


async def test_a_client_with_a_secret_asks_what_tokens_of_its_tenant_say(brain: People) -> None:
    client, public = await service(brain), await app(brain)
    user, token = await brain.signed_in()
    told = (await post(brain, "introspect", {"token": token}, client)).json()
    assert (told["active"], told["sub"], told["role"], told["tenant"]) == (True, user["id"], "member", brain.tenant)
    assert (told["iss"], told["aud"]) == ("https://brain.example", "brain")
    await brain.call("POST", "auth/logout", as_=token)
    for dead in (token, "x", brain.headers["admin"]["authorization"]):
        assert (await post(brain, "introspect", {"token": dead}, client)).json() == {"active": False}
    stranger = await brain.call("POST", "clients", {"name": "x"}, "stranger", 201)
    _, other = await brain.signed_in()
    assert (await post(brain, "introspect", {"token": other}, stranger)).json() == {"active": False}
    assert error_of(await post(brain, "introspect", {"token": other}, public)) == (403, "unauthorized_client")


async def test_metadata_says_what_there_is(brain: People) -> None:
    told = await brain.call("GET", "/.well-known/oauth-authorization-server", as_=None)
    assert told["issuer"] == "https://brain.example"
    assert told["token_endpoint"] == "https://brain.example/api/v1/auth/token"
    assert told["code_challenge_methods_supported"] == ["S256"] and told["response_types_supported"] == ["code"]
    assert sorted(told["grant_types_supported"]) == ["authorization_code", "client_credentials", "refresh_token"]
    for name, url in told.items():
        if name.endswith(("_endpoint", "_uri")):
            path = urlsplit(url).path
            assert (await brain.ask("GET", path, as_=None)).status_code != 404, name
