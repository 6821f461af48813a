"""Tenants do not meet: in rows, in Redis, among vectors, in routing, in metrics, in logs."""

import ast
import asyncio
import logging
import random
import re
from pathlib import Path

import asyncpg
import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from deployments.handles import HandleHosts
from domain.conversation import ConversationKey
from domain.errors import BrainError
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.vectors import Space, VectorRecord
from serve_app.generation_metrics import GenerationMetrics
from serve_app.ingress import metrics
from serve_app.ingress.parts import IngressSettings
from storage.conversations import PostgresConversations
from storage.journal import RedisJournal
from storage.postgres import call, open_pool, reading
from storage.redis import open_redis
from storage.vectors import open_vectors
from tests.conftest import make_database
from tests.unit.ingress_world import world
from tests.unit.test_ingress_models import make_key

ROOT = Path(__file__).parents[2]
TENANTS, SEED = 1000, 20261129
OURS = ("actors", "adapters", "deployments", "domain", "serve_app", "storage")

OPEN_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'brain'::regnamespace AND c.relkind IN ('r', 'p')
        AND (a.attname = 'tenant_id' OR c.relname = 'tenants' AND a.attname = 'id')
        AND NOT (c.relrowsecurity AND c.relforcerowsecurity
            AND NOT EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) AS role WHERE p.polrelid = c.oid
                AND (role = 0 OR role = 'brain_app'::regrole) AND coalesce(pg_get_expr(p.polqual, p.polrelid), 'true')
                    NOT IN ('(tenant_id = brain.tenant())', '(id = brain.tenant())')))
"""
"""Tables that name a tenant, of which the service's role may see rows that are not the transaction's tenant's."""

REDIS_KEYS = {
    "brain:{}:{{{}}}:{}": "a turn's journal: the tenant comes first",
    "brain:breakers": "which models failed: of the installation",
    "brain:wake:{}": "wakes a process's own reader: holds nothing",
    "brain:draining": "whether the service stops",
    "brain:metrics": "pages of replicas, whose labels name no tenant",
    "brain:attempts:{}": "failed sign-ins: sign-in:TENANT:…, and those of OAuth clients, client:ID:…",
    "brain:revoked:{}:{}": "access tokens that were revoked: the tenant comes first",
    "brain:{{{}}}:limits:{}:{}:{}": "what is left of a limit: the tenant comes first",
    "brain:{{{}}}:limits:channel:{}:requests": "the same, of a channel",
    "brain:limits:replicas": "which ingress replicas live",
    "brain:relay": "how far the relay of events is",
    "brain:relay:unconfirmed": "rows of the outbox by number and time",
    "brain:events:{}": "a tenant's events, of ids alone: the tenant follows",
    "brain:topic:{}": "events of the whole platform, for the operator",
    "brain:cache:{}:generation": "of a cache by name: a number that a flush raises",
    "brain:live:{}": "a channel by its number: what is told on it says of which tenant's conversation",
    "brain:{}:present:{}": "who is there in a conversation: the tenant comes first",
    "brain:{}:ticket:{}": "a credential that a ticket opens: the tenant comes first",
    "brain:{}:line:{{{}}}": "who holds a channel's connection: the tenant comes first",
    "brain:lines:{}": "a process is told there what to say on connections that it holds: pub/sub, which keeps nothing",
    "brain:cache:{}:{}:{}": "an entry of a cache by name: the tenant follows",
}
"""Every name of a key in Redis, and why it may be so. One that holds a tenant's data has the tenant in it."""

NOT_REDIS = {
    "brain:": "the purpose of a derived key",
    "brain:name:": "the same, of its name",
    "brain:pepper:": "the same, of a pepper",
}
LABELS = {
    "answer",
    "cache",  # by name, as the code names them
    "code",  # of a WebSocket's close
    "deployment",
    "direction",  # in or out
    "ending",
    "kind",
    "method",
    "model",
    "provider",
    "replica",
    "route",
    "status",
    "subject",  # tenant, user or key: which kind of limit refused, not whose
    "why",
    "le",
    "state",
    "space",
}
"""All labels of metrics: what they can hold is bounded by the code or by the catalog."""


@pytest.fixture(scope="module")
def own_url(postgres_folder):
    return make_database(postgres_folder)


@pytest.fixture(scope="module")
def many(own_url):
    """Tenants, of each a conversation of a name that tells whose it is."""
    tenants = [new_id("ten") for _ in range(TENANTS)]
    with psycopg.connect(own_url) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO brain.tenants (id, name) VALUES (%s, %s)", [(one, one) for one in tenants])
        cursor.executemany(
            "INSERT INTO brain.conversations (tenant_id, id, title) VALUES (%s, %s, %s)",
            [(one, f"conv_{one[4:]}", one) for one in tenants],
        )
    return tenants


@pytest.fixture(scope="module")
def login_url(postgres_folder, own_url):
    """A login of the service's own, as behind a pooler."""
    superuser, name = f"postgresql://postgres@/postgres?host={postgres_folder}", f"l{new_id('key')[4:]}"
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'y' IN ROLE brain_app")
        yield re.sub(r"//[^@]*@", f"//{name}:y@", own_url)
        connection.execute(f"DROP ROLE {name}")


class Visits:
    """What a tenant does on the shared connections, and how it ends: well, by an error, by a limit, by being left."""

    def __init__(self, pool, rng):
        self.pool, self.rng, self.foreign, self.ended = pool, rng, [], {}

    def look(self, tenant, rows):
        self.foreign += [(tenant, row[0]) for row in rows if row[0] != tenant]

    async def one(self, tenant):
        way = self.rng.choice(("reads", "writes", "calls", "errs", "raises", "times_out", "runs_long", "is_left"))
        try:
            await getattr(self, way)(tenant)
        except (BrainError, asyncpg.PostgresError, ZeroDivisionError, TimeoutError) as error:
            way = f"{way}: {type(error).__name__}"
        self.ended[way] = self.ended.get(way, 0) + 1

    async def reads(self, tenant):
        async with reading(self.pool, tenant) as lent:
            self.look(tenant, await lent.fetch("SELECT tenant_id FROM brain.conversations"))
            await asyncio.sleep(0)
            self.look(tenant, await lent.fetch("SELECT id FROM brain.tenants"))

    async def writes(self, tenant):
        async with reading(self.pool, tenant) as lent:
            self.look(tenant, await lent.fetch("UPDATE brain.conversations SET title = $1 RETURNING tenant_id", tenant))
            rows = await lent.fetch("SELECT title FROM brain.conversations")
        self.look(tenant, rows)
        assert len(rows) == 1

    async def calls(self, tenant):
        key = ConversationKey(tenant, f"conv_{tenant[4:]}")
        activation = await PostgresConversations(self.pool).activate(key, "0192f0c1-0000-7000-8000-000000000000")
        self.look(tenant, [(activation.conversation.tenant_id,)])
        row = await call(self.pool, "SELECT count(*) FROM brain.conversations")
        assert row[0] == 0, "a tenant has outlived its call"

    async def errs(self, tenant):
        async with reading(self.pool, tenant) as lent:
            self.look(tenant, await lent.fetch("SELECT tenant_id FROM brain.conversations"))
            await lent.fetch("SELECT 1 / (id = '')::integer FROM brain.conversations")

    async def raises(self, tenant):
        async with reading(self.pool, tenant) as lent:
            self.look(tenant, await lent.fetch("SELECT tenant_id FROM brain.conversations"))
            raise ZeroDivisionError

    async def times_out(self, tenant):
        async with reading(self.pool, tenant) as lent:
            await lent.execute("SET LOCAL statement_timeout = 1")
            await lent.fetch("SELECT pg_sleep(0.02)")

    async def runs_long(self, tenant):
        async with reading(self.pool, tenant) as lent:
            await lent.fetch("SELECT pg_sleep(0.05)", timeout=0.002)

    async def is_left(self, tenant):
        async def visit():
            async with reading(self.pool, tenant) as lent:
                while True:
                    self.look(tenant, await lent.fetch("SELECT tenant_id FROM brain.conversations, pg_sleep(0.001)"))

        task = asyncio.create_task(visit())
        for _ in range(self.rng.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_thousand_tenants_on_two_connections_see_no_foreign_row(own_url, login_url, many, pooled):
    pool = await open_pool(login_url if pooled else own_url, 2, pooled=pooled)
    visits, rng = Visits(pool, random.Random(SEED)), random.Random(SEED)
    order = [tenant for tenant in many for _ in range(3)]
    rng.shuffle(order)
    limit = asyncio.Semaphore(40)

    async def visit(tenant):
        async with limit:
            await visits.one(tenant)

    try:
        await asyncio.gather(*(visit(tenant) for tenant in order))
        assert visits.foreign == []
        assert {way.partition(":")[0] for way in visits.ended} == {
            "reads",
            "writes",
            "calls",
            "errs",
            "raises",
            "times_out",
            "runs_long",
            "is_left",
        }
        for wrong in ("errs", "times_out", "runs_long", "raises"):
            assert any(way.startswith(f"{wrong}: ") for way in visits.ended), (wrong, visits.ended)
        assert sum(visits.ended.values()) == 3 * TENANTS
        assert visits.ended["reads"] > 200, "most visits must have seen something"
        for _ in range(2):
            assert await pool.fetchval("SELECT count(*) FROM brain.conversations") == 0
            assert await pool.fetchval("SELECT coalesce(current_setting('brain.tenant', true), '')") == ""
    finally:
        await pool.close()


def test_every_table_with_a_tenant_forces_its_rows_apart(own_url):
    with psycopg.connect(own_url) as connection:
        assert connection.execute(OPEN_TABLES).fetchall() == []
        names = connection.execute(
            "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relkind = 'r'"
            " AND c.relnamespace = 'brain'::regnamespace AND a.attname = 'tenant_id'"
        ).fetchone()
    assert names is not None and names[0] > 25


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE brain.fresh (tenant_id text)",
        "CREATE TABLE brain.fresh (tenant_id text); ALTER TABLE brain.fresh ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE brain.fresh (tenant_id text); ALTER TABLE brain.fresh ENABLE ROW LEVEL SECURITY;"
        " ALTER TABLE brain.fresh FORCE ROW LEVEL SECURITY; CREATE POLICY p ON brain.fresh TO brain_app USING (true)",
        "CREATE TABLE brain.fresh (tenant_id text); ALTER TABLE brain.fresh ENABLE ROW LEVEL SECURITY;"
        " ALTER TABLE brain.fresh FORCE ROW LEVEL SECURITY; CREATE POLICY p ON brain.fresh USING (tenant_id <> '')",
        "ALTER TABLE brain.messages NO FORCE ROW LEVEL SECURITY; ALTER TABLE brain.messages RENAME TO fresh",
    ],
)
def test_a_table_that_is_made_without_it_is_found(own_url, made):
    with psycopg.connect(own_url) as connection:
        connection.execute(made)
        assert connection.execute(OPEN_TABLES).fetchall() == [("fresh",)]
        connection.rollback()


def literals(path):
    """Texts of a source, those with places as `str.format` would have them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value.replace("{", "{{").replace("}", "}}") if isinstance(part, ast.Constant) else "{}"
                for part in node.values
            )


def test_every_name_of_a_key_in_redis_is_known_and_those_of_tenants_hold_them():
    known = set(REDIS_KEYS) | set(NOT_REDIS)
    found = set()
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            for text in literals(path):
                if re.match(r"brain:[a-z{]\S*$|brain:$", text) and "'" not in text:
                    found.add(text)
    parts = {text for text in found if not any(other != text and other.startswith(text) for other in found)}
    assert parts - known == set(), "a key of a tenant's data starts with brain:TENANT: — and is listed here"
    assert found >= {"brain:breakers", "brain:draining", "brain:{}:{{{}}}:{}"}


async def test_equal_turns_of_two_tenants_have_journals_of_their_own(redis_url):
    redis = open_redis(redis_url)
    journal = RedisJournal(open_redis(redis_url))
    turn, tenants = new_id("turn"), [new_id("ten"), new_id("ten")]
    for tenant in tenants:
        await journal.append(tenant, turn, 1, [("turn.accepted", {"user_message": {"of": tenant}})])
        request = GenerationRequest(tenant, turn, 1, "m", [], {}, n=1)
        assert await journal.claim(request, f"writer of {tenant}")
    for tenant in tenants:
        progress = await journal.progress(tenant, turn, 1, epoch=1)
        assert [event.data["user_message"]["of"] for event in progress.events] == [tenant]
    keys = {key.decode() async for key in redis.scan_iter(match=f"*{turn}*")}
    assert len(keys) == 6 and all(any(key.startswith(f"brain:{tenant}:") for tenant in tenants) for key in keys)
    await journal.close()
    await redis.aclose()


async def test_vectors_of_tenants_whose_names_are_alike_stay_apart(tmp_path):
    space = Space("s1", "e@r", 2)
    folder = tmp_path / "within" / "vectors"
    store = open_vectors(str(folder), space)
    tenants = ["ten_a", "ten_A", "ten_a/b", "ten_a%2Fb", "../ten_a", "ten_a'; DROP", "ten_ä", "ten_a ", "ten_a.lance"]
    try:
        for tenant in tenants:
            await store.upsert(tenant, [VectorRecord(f"msg of {tenant}", "c", [1.0, 0.0], "user", 1.0, user=tenant)])
        for tenant in tenants:
            assert [one.id for one in await store.search(tenant, [1.0, 0.0], 10)] == [f"msg of {tenant}"]
            assert await store.count(tenant) == 1
        await store.delete_tenant(tenants[0])
        assert [await store.count(tenant) for tenant in tenants] == [0] + [1] * (len(tenants) - 1)
    finally:
        await store.close()
    assert list(tmp_path.iterdir()) == [folder.parent] and list(folder.parent.iterdir()) == [folder]


def test_a_session_is_its_tenants():
    class Handle:
        def __init__(self):
            self.sessions = []

        def options(self, **options):
            self.sessions += [options[name] for name in ("session_id",) if name in options]
            return self

    handle = Handle()
    for tenant in ("ten_a", "ten_b"):
        HandleHosts(handle)._session(ConversationKey(tenant, "conv_x"))
    assert handle.sessions == ["ten_a:conv_x", "ten_b:conv_x"]


def labels_of(page):
    for line in page.splitlines():
        if not line.startswith("#") and "{" in line:
            yield from re.findall(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"', line)


def test_no_metric_of_the_sources_has_a_label_that_grows_with_tenants():
    makers = {"Counter", "Gauge", "Histogram", "Summary", "GaugeMetricFamily", "CounterMetricFamily", "counter"}
    found = set()
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "prometheus_client" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in makers:
                    words = [word.value for word in node.keywords if word.arg in ("labels", "labelnames")]
                    for one in (*node.args[2:], *words):
                        for part in ast.walk(one):
                            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                                found.add(part.value)
    assert found - LABELS == set(), "is what this label holds bounded? then list it"
    assert {"method", "route", "status", "provider", "model"} <= found


async def test_no_label_of_a_metric_holds_an_id_of_a_tenant_or_a_user(database_url, tenant):
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        ten = new_id("ten")
        headers = make_key(database_url, ten, "owner")
        user = "somebody@example.com"
        created = await made.http.post("/api/v1/conversations", json={"user_id": user}, headers=headers)
        conversation = created.json()["id"]
        await made.http.post(f"/api/v1/conversations/{conversation}/messages", json={"content": "x"}, headers=headers)
        for path in (f"/api/v1/{ten}", f"/{user}", f"/api/v1/conversations/{conversation}", f"/api/v1/tenants/{ten}/x"):
            await made.http.get(path, headers=headers)
        await made.http.request(f"X{ten.upper()}", "/api/v1/conversations", headers=headers)
    found = list(labels_of(metrics.render()))
    assert len(found) > 10
    for name, value in found:
        assert name in LABELS
        for id in (ten, ten.upper(), user, conversation, tenant):
            assert id not in value, (name, value)
        assert not re.search(r"(conv|msg|turn|usr|ten|key)_[0-9a-f]{32}", value), (name, value)


def test_a_model_id_that_a_pattern_allows_makes_no_label_of_its_own():
    class LLM:
        running = 0
        told = None

        def __init__(self):
            from tests.unit.ingress_world import CATALOG

            self.catalog = CATALOG
            self.policies = type("P", (), {})()
            self.policies.limits = type("L", (), {"paused": None})()
            self.policies.at_most = type("A", (), {"waiting": {}})()
            self.policies.circuits = type("C", (), {"states": lambda self: {}})()

    registry = CollectorRegistry()
    told = GenerationMetrics(LLM(), registry).told
    for number in range(50):
        told(Outcome("completed", "x", f"gpt-{number}-{new_id('ten')}", "stop", None))
        told(Outcome("failed", "", new_id("ten"), None, None))
    models = {value for name, value in labels_of(generate_latest(registry).decode()) if name == "model"}
    assert models == {"gpt-*", "none"}


async def test_a_line_of_the_log_says_whose_request_and_whose_turn_it_was(database_url, tenant, capfd):
    from serve_app.ingress import logs

    factory = logging.getLogRecordFactory()
    logs.configure_logging("INFO")
    try:
        async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
            reader = made.parts.reader
            asked = reader.conversations

            async def told(*args):
                logging.getLogger("brain.test").info("looked")
                return await asked(*args)

            type(reader).conversations, before = lambda self, *args: told(*args), type(reader).conversations
            ten = new_id("ten")
            try:
                headers = make_key(database_url, ten, "owner")
                await asyncio.gather(
                    *(made.http.get("/api/v1/conversations", headers=one) for one in (headers, None) for _ in range(5))
                )
            finally:
                type(reader).conversations = before
    finally:
        logging.setLogRecordFactory(factory)
    lines = [line for line in capfd.readouterr().err.splitlines() if '"looked"' in line or '"event":"request"' in line]
    for one in (ten, tenant):
        assert sum(f'"tenant":"{one}"' in line and '"looked"' in line for line in lines) == 5
        assert sum(f'"tenant":"{one}"' in line and '"event":"request"' in line for line in lines) == 5
