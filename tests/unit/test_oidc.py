"""Tokens of an outside OpenID provider, whose keys come from a server on loopback."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from domain.ids import new_id
from serve_app.ingress.outside import OutsideIssuers, read_providers
from tests.unit.users_world import PASSWORD, People, people

ISSUER = "https://login.example/"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


class KeyServer:
    """Publishes `keys`; counts how often it was asked."""

    def __init__(self) -> None:
        self.keys = [public_jwk(RSA_KEY, "one")]
        self.status, self.asked, self.url = 200, 0, ""
        self.body: bytes | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.status == 302:
            raise web.HTTPFound("/elsewhere")
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        return web.Response(status=self.status, body=body, content_type="application/json")


@pytest.fixture
async def keys() -> AsyncIterator[KeyServer]:
    server, app = KeyServer(), web.Application()
    app.router.add_get("/keys", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield server
    await runner.cleanup()


def token(key: Any = RSA_KEY, algorithm: str = "RS256", headers: Any = None, **claims: Any) -> str:
    now = time.time()
    content = {
        "iss": ISSUER,
        "aud": "brain-api",
        "sub": "u-1",
        "iat": now,
        "exp": now + 300,
        "roles": ["staff"],
    } | claims
    named = {"kid": "one", **(headers or {})}
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm, {name: value for name, value in named.items() if value is not None})


def write(path: Path, **fields: Any) -> Path:
    provider = {
        "issuer": ISSUER,
        "audience": "brain-api",
        "tenant_claim": "org",
        "roles_claim": "roles",
        "roles": {"boss": "owner", "staff": "agent", "root": "member"},
        **fields,
    }
    path.write_text(yaml.safe_dump({"providers": [{k: v for k, v in provider.items() if v is not None}]}))
    return path


@pytest.fixture
async def brain(
    database_url: str, redis_url: str, tenant: str, keys: KeyServer, tmp_path: Path
) -> AsyncIterator[People]:
    path = write(tmp_path / "oidc.yaml", jwks_url=keys.url)
    async with people(database_url, redis_url, tenant, oidc=path) as made:
        assert made.identity.outside is not None
        await made.identity.outside.refresh()
        yield made


async def test_who_comes_with_an_outside_token_is_a_user_with_the_role_that_it_says(brain: People) -> None:
    subject = new_id("req")
    shown = token(sub=subject, org=brain.tenant, email="ada@corp.example", name="Ada")
    me = await brain.call("GET", "users/me", as_=shown)
    assert (me["email"], me["name"], me["role"], me["tenant_id"]) == ("ada@corp.example", "Ada", "agent", brain.tenant)
    assert (await brain.call("GET", "users/me", as_=token(sub=subject, org=brain.tenant)))["id"] == me["id"]
    boss = await brain.call("GET", "users/me", as_=token(sub=subject, org=brain.tenant, roles=["staff", "boss"]))
    assert (boss["id"], boss["role"]) == (me["id"], "owner"), "the first entry of the file that fits"
    member = token(sub=subject, org=brain.tenant, roles=["root"])
    mine = await brain.call("POST", "conversations", {}, as_=member, status=201)
    assert mine["user_id"] == me["id"]


async def test_the_same_subject_in_two_tenants_is_two_users(brain: People) -> None:
    other = new_id("ten")
    brain.key("member", other)
    subject = new_id("req")
    here = await brain.call("GET", "users/me", as_=token(sub=subject, org=brain.tenant))
    there = await brain.call("GET", "users/me", as_=token(sub=subject, org=other))
    assert here["id"] != there["id"] and there["tenant_id"] == other


async def test_an_address_in_a_token_is_no_way_to_the_local_user_of_that_address(brain: People) -> None:
    local = await brain.user("owner")
    me = await brain.call("GET", "users/me", as_=token(sub=new_id("req"), org=brain.tenant, email=local["email"]))
    assert me["id"] != local["id"] and me["role"] == "agent"
    await brain.sign_in(local, PASSWORD)


async def test_nobody_becomes_the_operator(brain: People, tmp_path: Path, keys: KeyServer) -> None:
    for roles in (["operator"], "operator", ["staff", "operator"]):
        answer = await brain.ask("GET", "admin/usage", as_=token(sub=new_id("req"), org=brain.tenant, roles=roles))
        assert answer.status_code in (401, 403)
    for fields in ({"roles": {"x": "operator"}}, {"default_role": "operator"}):
        with pytest.raises(ValueError, match="operator"):
            read_providers(write(tmp_path / "wrong.yaml", jwks_url=keys.url, **fields))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://login.example"},
        {"iss": None},
        {"aud": "another-api"},
        {"aud": None},
        {"exp": time.time() - 10},
        {"exp": None},
        {"iat": time.time() + 600},
        {"iat": None},
        {"nbf": time.time() + 600},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"org": None},
        {"org": "ten_1"},
        {"org": "ten_" + "0" * 32},
        {"org": ["ten_" + "0" * 32]},
        {"roles": ["nothing"]},
        {"roles": None},
        {"roles": {"staff": True}},
    ],
)
async def test_what_an_outside_token_lacks_or_has_wrong_lets_nobody_in(brain: People, claims: dict[str, Any]) -> None:
    good = {"org": brain.tenant, "sub": new_id("req")}
    assert (await brain.ask("GET", "users/me", as_=token(**good))).status_code == 200
    assert (await brain.ask("GET", "users/me", as_=token(**{**good, **claims}))).status_code == 401


async def test_keys_and_algorithms_are_those_that_were_loaded(brain: People, keys: KeyServer) -> None:
    org, other = brain.tenant, rsa.generate_private_key(65537, 2048)
    pem = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    asked = keys.asked
    for shown in (
        token(other, org=org),
        token(other, headers={"kid": "two"}, org=org),
        token(other, headers={"kid": "two", "jku": keys.url, "jwk": public_jwk(other, "two")}, org=org),
        token(RSA_KEY, "RS512", org=org),
        token(RSA_KEY, "PS256", org=org),
        _confused(pem, org),
        token(None, "none", org=org),
        token(EC_KEY, "ES256", org=org),
        token(headers={"typ": "id+jwt"}, org=org),
        token(headers={"crit": ["x"]}, org=org),
    ):
        assert (await brain.ask("GET", "users/me", as_=shown)).status_code == 401
    assert keys.asked == asked, "no token causes a look at the keys"
    assert (await brain.ask("GET", "users/me", as_=token(headers={"kid": None}, org=org))).status_code == 200


def _confused(secret: bytes, org: str) -> str:
    """Signed by HMAC with what everybody knows; the library would not make it."""
    header, body = ({"alg": "HS256", "kid": "one"}, token(org=org).split(".")[1])
    content = f"{base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b'=').decode()}.{body}"
    sign = hmac.digest(secret, content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(sign).rstrip(b'=').decode()}"


async def test_keys_that_the_provider_rotates_are_taken_over_and_an_outage_costs_none(
    brain: People, keys: KeyServer
) -> None:
    outside = brain.identity.outside
    assert outside is not None
    old, new = token(org=brain.tenant), token(EC_KEY, "ES256", {"kid": "two"}, org=brain.tenant)
    keys.keys = [public_jwk(RSA_KEY, "one"), public_jwk(EC_KEY, "two")]
    await outside.refresh()
    for shown in (old, new):
        assert (await brain.ask("GET", "users/me", as_=shown)).status_code == 200
    for status, body in ((500, None), (302, None), (200, b"x" * 600_000), (200, b"[]"), (200, b'{"keys": []}')):
        keys.status, keys.body = status, body
        await outside.refresh()
        assert outside.verified(new) is not None
    keys.status, keys.body, keys.keys = 200, None, [public_jwk(EC_KEY, "two")]
    await outside.refresh()
    assert outside.verified(old) is None and outside.verified(new) is not None


async def test_signing_out_ends_an_outside_token_and_disabling_ends_its_user(brain: People) -> None:
    subject = new_id("req")
    shown, next_ = (token(sub=subject, org=brain.tenant, jti=new_id("req")) for _ in range(2))
    me = await brain.call("GET", "users/me", as_=shown)
    await brain.call("POST", "auth/logout", as_=shown)
    await brain.call("GET", "users/me", as_=shown, status=401)
    await brain.call("GET", "users/me", as_=next_)
    with psycopg.connect(brain.database_url) as connection:
        (row,) = connection.execute(
            "SELECT count(*) FROM brain.revoked_tokens WHERE tenant_id = %s", (brain.tenant,)
        ).fetchall()
    assert row[0] == 1
    await brain.call("PATCH", f"users/{me['id']}", {"status": "disabled"}, "owner")
    await brain.call("GET", "users/me", as_=next_, status=401)


async def test_scopes_of_a_claim_narrow_the_role(tmp_path: Path) -> None:
    path = write(
        tmp_path / "oidc.json", jwks={"keys": [public_jwk(RSA_KEY, "one")]}, tenant_claim=None, tenant=new_id("ten"),
        scope_claim="scp",
    )  # fmt: skip
    found = OutsideIssuers(read_providers(path)).verified(token(scp="models:read users:self"))
    assert found is not None and found.scopes == ("models:read", "users:self")
    none = OutsideIssuers(read_providers(path)).verified(token())
    assert none is not None and none.scopes == ()


async def test_a_claim_may_lie_within_another_and_values_are_mapped(tmp_path: Path) -> None:
    tenant = new_id("ten")
    path = write(
        tmp_path / "oidc.yaml",
        jwks={"keys": [public_jwk(RSA_KEY, "one")]},
        tenant_claim="realm.org",
        tenants={"acme": tenant},
        roles_claim="realm.roles",
    )
    outside = OutsideIssuers(read_providers(path))
    found = outside.verified(token(realm={"org": "acme", "roles": "boss"}))
    assert found is not None and (found.tenant, found.role) == (tenant, "owner")
    assert outside.verified(token(realm={"org": "other", "roles": "boss"})) is None
    assert outside.verified(token(realm={"org": tenant, "roles": "boss"})) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"jwks_url": "http://login.example/keys"},
        {"jwks_url": None},
        {"jwks": {"keys": []}},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"tenant_claim": None},
        {"tenant": "ten_" + "0" * 32},
        {"tenants": {"a": "b"}},
        {"audience": ""},
        {"made_up": 1},
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    fields = {"jwks_url": None if "jwks" in fields else "https://login.example/keys", **fields}
    with pytest.raises(ValueError, match=r"oidc\.yaml"):
        read_providers(write(tmp_path / "oidc.yaml", **fields))


def test_a_small_rsa_key_and_a_secret_one_are_left_out(tmp_path: Path) -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505  (it must be refused)
    symmetric = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "s", "alg": "HS256"}
    for entry in (public_jwk(small, "one"), symmetric, {**public_jwk(RSA_KEY, "one"), "use": "enc"}):
        with pytest.raises(ValueError, match="no key"):
            read_providers(write(tmp_path / "oidc.yaml", jwks={"keys": [entry]}))


async def test_keys_are_looked_for_at_the_start_until_they_are_there(keys: KeyServer, tmp_path: Path) -> None:
    outside = OutsideIssuers(read_providers(write(tmp_path / "oidc.yaml", jwks_url=keys.url)))
    shown = token(org="ten_" + "0" * 32)
    outside.start()
    async with asyncio.timeout(10):
        while outside.verified(shown) is None:
            await asyncio.sleep(0.01)
    await outside.close()
    assert keys.asked == 1
