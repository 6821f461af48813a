"""Access tokens: what counts, what does not, and what is asked where nothing can be heard."""

import base64
import hmac
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import orjson
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import Unavailable
from domain.ids import new_id
from serve_app.access_watch import AccessWatch
from serve_app.ingress.token_callers import TokenCallers
from serve_app.ingress.tokens import Tokens, header_of
from storage.reader import PostgresReader
from storage.redis import open_redis
from storage.resealing import reseal
from storage.revocations import Revocations
from storage.sealing import MasterKeys
from storage.signing_keys import PostgresSigningKeys, SigningKey, jwk
from storage.subjects import PostgresSubjects
from tests.conftest import free_port
from tests.servers.given import open_pool
from tests.unit.users_world import MASTER, People, people

NOW = float(int(time.time()))
ISSUER, TENANT, USER = "https://brain.example", "ten_" + "a" * 32, "usr_" + "b" * 32
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


def signing_key(name: str = "at-one", **times: Any) -> SigningKey:
    private = Ed25519PrivateKey.generate()
    began = datetime.fromtimestamp(NOW - 1000, UTC)
    public = {**jwk(private.public_key()), "kid": name}
    key = SigningKey(name, "EdDSA", public, private, began, None, None)
    return replace(key, **times)


def tokens_of(*keys: SigningKey, now: float = NOW) -> Tokens:
    made = Tokens(ISSUER, "brain", 900, clock=lambda: now)
    made.use(keys)
    return made


KEY = signing_key()
assert KEY.private is not None
TOKENS = tokens_of(KEY)
TOKEN, CLAIMS = TOKENS.issue(TENANT, USER, "member", ["models:read"], "ses_1", "key_1")


def forged(key: Any = KEY.private, algorithm: str = "EdDSA", headers: Any = None, **claims: Any) -> str:
    """A token as this service makes them, but for what is given; None leaves a claim or a header out."""
    content = jwt.decode(TOKEN, options={"verify_signature": False}) | claims
    named = {"typ": "at+jwt", "kid": KEY.id, **(headers or {})}
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm, {name: value for name, value in named.items() if value is not None})


def test_a_token_says_what_it_was_made_for_and_counts_until_it_expires() -> None:
    assert TOKENS.verified(TOKEN) == CLAIMS
    assert (CLAIMS.tenant, CLAIMS.subject, CLAIMS.scopes, CLAIMS.session) == (TENANT, USER, ("models:read",), "ses_1")
    assert jwt.get_unverified_header(TOKEN) == {"alg": "EdDSA", "typ": "at+jwt", "kid": "at-one"}
    assert tokens_of(KEY, now=CLAIMS.expires_at - 1).verified(TOKEN) == CLAIMS
    assert tokens_of(KEY, now=CLAIMS.expires_at).verified(TOKEN) is None
    assert TOKENS.verified(forged()) is not None, "what is refused below is refused for what it changes"


@settings(deadline=None)
@given(st.data())
def test_a_token_of_which_any_byte_is_changed_is_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TOKEN) - 1))
    letter = data.draw(st.sampled_from(LETTERS).filter(lambda letter: letter != TOKEN[place]))
    assert TOKENS.verified(TOKEN[:place] + letter + TOKEN[place + 1 :]) is None


@settings(deadline=None)
@given(st.integers(0, len(TOKEN)), st.text(min_size=1, max_size=3), st.integers(1, 3))
def test_a_token_with_more_or_less_in_it_is_refused(place: int, more: str, count: int) -> None:
    assert TOKENS.verified(TOKEN[:place] + more + TOKEN[place:]) is None
    if place + count <= len(TOKEN):
        assert TOKENS.verified(TOKEN[:place] + TOKEN[place + count :]) is None


@settings(deadline=None)
@given(st.text() | st.from_regex(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_what_is_no_token_is_refused(text: str) -> None:
    assert TOKENS.verified(text) is None


def test_no_other_spelling_of_the_same_bytes_counts() -> None:
    last = LETTERS.index(TOKEN[-1])
    spelled = [TOKEN[:-1] + LETTERS[last ^ bits] for bits in range(1, 16)]
    raw = base64.urlsafe_b64decode(TOKEN.split(".")[2] + "==")
    same = [one for one in spelled if base64.urlsafe_b64decode(one.split(".")[2] + "==") == raw]
    assert len(same) == 15, "the four bits over mean nothing to a lenient decoder"
    assert all(TOKENS.verified(one) is None for one in [*same, TOKEN + "=", TOKEN + "==", TOKEN + "\n"])


def test_the_algorithm_is_the_issuers_one() -> None:
    public = KEY.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert TOKENS.verified(forged(None, "none")) is None
    pem = KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, body, sign = TOKEN.split(".")
    for secret in (public, pem, orjson.dumps(KEY.public), KEY.public["x"].encode()):
        content = f"{_part({**jwt.get_unverified_header(TOKEN), 'alg': 'HS256'})}.{body}"
        assert TOKENS.verified(f"{content}.{_encoded(hmac.digest(secret, content.encode(), 'sha256'))}") is None
    for name in ("none", "None", "HS256", "ES256", "eddsa", "Ed25519", "", None):
        spelled = _part({**jwt.get_unverified_header(TOKEN), "alg": name})
        assert TOKENS.verified(f"{spelled}.{body}.{sign}") is None
        assert TOKENS.verified(f"{spelled}.{body}.") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"kid": "at-two"},
        {"kid": None},
        {"kid": "../../dev/null"},
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "AT+JWT"},
        {"jwk": {"kty": "OKP"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"crit": ["exp"]},
    ],
)
def test_no_header_chooses_how_a_token_is_verified(headers: dict[str, Any]) -> None:
    assert TOKENS.verified(forged(headers=headers)) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://brain.example/"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": ["brain", "other"]},
        {"sub": None},
        {"sub": 7},
        {"tenant": None},
        {"tenant": "ten_1"},
        {"tenant": {"a": 1}},
        {"jti": None},
        {"exp": None},
        {"exp": NOW - 1},
        {"exp": "tomorrow"},
        {"exp": True},
        {"iat": None},
        {"iat": NOW + 3600},
        {"nbf": time.time() + 3600},
        {"role": ["owner"]},
        {"scope": ["models:read"]},
        {"sid": 1},
    ],
)
def test_every_claim_is_there_and_right(claims: dict[str, Any]) -> None:
    try:
        token = forged(**claims)
    except TypeError:  # the library makes no such token: by hand
        token = _by_hand(claims)
    assert TOKENS.verified(token) is None


def _by_hand(claims: dict[str, Any]) -> str:
    content = jwt.decode(TOKEN, options={"verify_signature": False}) | claims
    parts = [TOKEN.split(".")[0], _part(content)]
    return ".".join([*parts, _encoded(KEY.private.sign(".".join(parts).encode()))])


def _part(content: dict[str, Any]) -> str:
    return _encoded(orjson.dumps(content))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_key_of_another_service_signs_nothing_here() -> None:
    other = signing_key()
    assert TOKENS.verified(forged(other.private)) is None
    assert tokens_of(other).verified(TOKEN) is None


def test_keys_take_over_with_an_overlap() -> None:
    at = datetime.fromtimestamp(NOW + 5, UTC)
    old = replace(KEY, signs_until=at, verifies_until=at + timedelta(seconds=960))
    new = signing_key("at-two", signs_from=at)

    def kid(now: float) -> str:
        return str(jwt.get_unverified_header(tokens_of(old, new, now=now).issue(TENANT, USER, "member")[0])["kid"])

    assert (kid(NOW), kid(NOW + 4.9), kid(NOW + 5)) == ("at-one", "at-one", "at-two")
    assert tokens_of(old, new, now=NOW + 800).verified(TOKEN) == CLAIMS
    long = forged(exp=NOW + 5000)
    assert tokens_of(old, new, now=NOW + 964).verified(long) is not None
    assert tokens_of(old, new, now=NOW + 966).verified(long) is None, "the key ends whatever a token says"
    assert {key["kid"] for key in tokens_of(old, new).jwks["keys"]} == {"at-one", "at-two"}
    assert all("d" not in key for key in tokens_of(old, new).jwks["keys"])


def test_without_a_key_nothing_is_made_and_nothing_counts() -> None:
    with pytest.raises(Unavailable):
        tokens_of().issue(TENANT, USER, "member")
    assert tokens_of().verified(TOKEN) is None


def test_a_header_is_an_object_in_three_parts() -> None:
    for text in ("", "a.b", "a.b.c.d", "W10.e30.", "ﬁ.e30.", "e30.e30."):
        assert header_of(text) is None


# With the database.


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def test_replicas_that_start_together_make_one_key_which_no_row_shows(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.signing_keys")
    pool = await open_pool(database_url, 4)
    stores = [PostgresSigningKeys(pool, MasterKeys.parse(MASTER), 900) for _ in range(4)]
    found = [(await store.present())[0] for store in stores]
    assert len({key.id for key in found}) == 1
    assert found[0].private is not None
    raw = found[0].private.private_bytes_raw()
    with psycopg.connect(database_url) as connection:
        (row,) = connection.execute("SELECT sealed::text || public::text FROM brain.signing_keys").fetchall()
    for form in (raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")):
        assert form not in row[0]
    new, old = "cd" * 32, MASTER

    def lost_by(keys: str) -> bool:
        return any(found[0].id in name for name in reseal(database_url, MasterKeys.parse(keys)).lost)

    assert lost_by(new) and not lost_by(f"{new},{old}") and not lost_by(new)
    assert (await PostgresSigningKeys(pool, MasterKeys.parse(new), 900).present())[0].id == found[0].id
    lost = await PostgresSigningKeys(pool, MasterKeys.parse("ef" * 32), 900).present()
    assert [(key.id == found[0].id, key.lasting) for key in lost] == [(True, False), (False, True)]
    counted = tokens_of(*lost, now=time.time())
    token, _ = counted.issue(TENANT, USER, "member")
    assert jwt.get_unverified_header(token)["kid"] == lost[1].id and counted.verified(token) is not None
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.signing_keys")
    await pool.close()


async def test_a_rotated_key_takes_over_and_tokens_of_the_one_before_count_on(brain: People) -> None:
    _, token = await brain.signed_in()
    before = await brain.call("GET", "/.well-known/jwks.json", as_=None)
    await brain.call("POST", "admin/signing-keys/rotate", as_="owner", status=403)
    made = await brain.call("POST", "admin/signing-keys/rotate", as_="operator", status=201)
    after = await brain.call("GET", "/.well-known/jwks.json", as_=None)
    assert {key["kid"] for key in after["keys"]} == {key["kid"] for key in before["keys"]} | {made["id"]}
    brain.world.parts.callers.forget(None)
    await brain.call("GET", "users/me", as_=token)
    _, fresh = await brain.signed_in()
    await brain.call("GET", "users/me", as_=fresh)


async def test_what_was_revoked_on_one_replica_counts_on_none(brain: People, redis_url: str) -> None:
    """A second replica with its own memory, which hears of it."""
    told = await brain.sign_in(await brain.user())
    pool, redis = await open_pool(brain.database_url, 4), open_redis(redis_url)
    other = _callers(pool, redis)
    watch = AccessWatch(PostgresReader(pool))
    other.revocations.current = watch.current
    watch.listeners.append(other.heard)
    await watch.refresh()
    assert (await other.find(told["access_token"])) is not None
    await brain.call("POST", "auth/logout", as_=told["access_token"])
    await watch.refresh()
    assert (await other.find(told["access_token"])) is None
    late = _callers(pool, redis)  # one that starts after it
    await late.heard(None)
    late.revocations.current = lambda: True
    assert (await late.find(told["access_token"])) is None
    await redis.aclose()
    await pool.close()


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize(("redis_up", "postgres_up"), [(True, True), (True, False), (False, True), (False, False)])
async def test_where_nothing_is_heard_redis_is_asked_then_postgres_and_then_nobody_gets_in(
    brain: People, redis_url: str, redis_up: bool, postgres_up: bool, revoked: bool
) -> None:
    told = await brain.sign_in(await brain.user())
    pool = await open_pool(brain.database_url, 4)
    redis = open_redis(redis_url if redis_up else f"redis://127.0.0.1:{free_port()}", timeout=0.5)
    replica = _callers(pool, redis)
    await replica.heard(None)
    replica.revocations.current = lambda: True
    assert (await replica.find(told["access_token"])) is not None
    replica.revocations.current = lambda: False
    if revoked:
        await brain.call("POST", "auth/logout", as_=told["access_token"])
    if not postgres_up:
        await pool.close()
    if redis_up or postgres_up:
        found = await replica.find(told["access_token"])
        assert (found is None) is revoked
    else:
        with pytest.raises(Unavailable):
            await replica.find(told["access_token"])
    await redis.aclose()
    await pool.close()


def _callers(pool: Any, redis: Any) -> TokenCallers:
    keys = PostgresSigningKeys(pool, MasterKeys.parse(MASTER), 900)
    return TokenCallers(
        Tokens("https://brain.example", "brain", 900), keys, Revocations(pool, redis, 900), PostgresSubjects(pool)
    )


async def test_a_token_made_before_its_user_was_signed_out_everywhere_counts_no_more(brain: People) -> None:
    user, token = await brain.signed_in()
    with psycopg.connect(brain.database_url) as connection:
        connection.execute("UPDATE brain.users SET tokens_from = now() WHERE id = %s", (user["id"],))
        connection.execute("SELECT brain.access_changed(%s, 'user', %s)", (brain.tenant, user["id"]))
    await brain.watch.refresh()
    await brain.call("GET", "users/me", as_=token, status=401)


async def test_a_token_says_a_role_and_the_database_counts(brain: People) -> None:
    user, _ = await brain.signed_in()
    issue = brain.identity.tokens.issue
    claimed, _ = issue(brain.tenant, user["id"], "operator")
    assert (await brain.ask("GET", "users", as_=claimed)).status_code == 403
    nobody, _ = issue(brain.tenant, new_id("usr"), "owner")
    assert (await brain.ask("GET", "users", as_=nobody)).status_code == 401
    elsewhere, _ = issue(new_id("ten"), user["id"], "owner")
    assert (await brain.ask("GET", "users", as_=elsewhere)).status_code == 401


async def test_scopes_narrow_a_token_and_never_widen_it(brain: People) -> None:
    user, _ = await brain.signed_in()
    token, _ = brain.identity.tokens.issue(brain.tenant, user["id"], "member", ["users:self", "users:manage", "x"])
    await brain.call("GET", "users/me", as_=token)
    assert (await brain.ask("GET", "conversations", as_=token)).status_code == 403
    assert (await brain.ask("POST", "users", {}, as_=token)).status_code == 403
