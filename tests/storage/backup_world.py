"""A database with every kind of row, and what stands in one."""

import uuid
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from domain.commands import Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.ports import Ownership
from storage.bootstrap import bootstrap
from storage.conversations import PostgresConversations
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send

ODD = "tab\t, line\r\n, back\\slash, \\N and \\., quote'\", ü, 語, 🧠, \x01 and nothing: "
ROWS = """
INSERT INTO brain.usage (tenant_id, turn_id, attempt, model, provider, prompt_tokens, cached_tokens, completion_tokens,
        cost_usd, estimated, created_at)
    VALUES (%(tenant)s, 'turn_x', 1, 'm', 'p', 7, 3, 5, 0.123456789012345678901234567890, true, now());
INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%(tenant)s, %(settings)s);
INSERT INTO brain.budgets (tenant_id, starts, hard_usd, spent_usd, reserved_usd)
    VALUES (%(tenant)s, '-infinity', 10, 1.000000000000000000000000000001, 0.5);
INSERT INTO brain.reservations VALUES (%(tenant)s, 'turn_y', 0.5, 'infinity');
INSERT INTO brain.providers (name, entry, version) VALUES (left(%(tenant)s, 60), %(settings)s, 0);
INSERT INTO brain.erasures (tenant_id, id, kind, subject, removed)
    VALUES (%(tenant)s, 'rcpt_x', 'user', '\\x00ff', '{}');
INSERT INTO brain.erasure_steps (tenant_id, erasure_id, conversation_id, counts, turns)
    VALUES (%(tenant)s, 'rcpt_x', %(odd)s, '{}', '[]');
INSERT INTO brain.receipt_keys (kid, public) VALUES (%(tenant)s, %(settings)s);
INSERT INTO brain.outbox_consumers (name) VALUES (%(tenant)s);
INSERT INTO brain.hosts VALUES (gen_random_uuid(), clock_timestamp() - interval '16 s');
INSERT INTO brain.feedback (tenant_id, message_id, score, comment)
    SELECT tenant_id, id, 0.1::float8 + 0.2::float8, %(odd)s FROM brain.messages WHERE tenant_id = %(tenant)s LIMIT 1;
INSERT INTO brain.summaries (tenant_id, conversation_id, up_to, seq, sections, facts, made_by)
    SELECT tenant_id, id, 1, 2, %(sections)s, %(facts)s, %(odd)s FROM brain.conversations
    WHERE tenant_id = %(tenant)s;
INSERT INTO brain.complexity_scorers (tenant_id, version, embedder, artefact)
    VALUES (%(tenant)s, 1, 'e', %(artefact)s);
INSERT INTO brain.intents (tenant_id, id, name, description, examples)
    VALUES (%(tenant)s, 'int_x', %(odd)s, %(odd)s, jsonb_build_array(%(odd)s::text));
INSERT INTO brain.intent_trainings (tenant_id, id, request) VALUES (%(tenant)s, 'train_x', %(settings)s);
INSERT INTO brain.intent_heads (tenant_id, version, embedder, artefact, fingerprint, training_id, effort, active)
    VALUES (%(tenant)s, 1, 'e', %(artefact)s, '\\x00', 'train_x', 'first', true);
INSERT INTO brain.outbox_set_aside (consumer, outbox_id, tenant_id, topic, payload, failures, error)
    VALUES ('indexer', (random() * 1e9)::bigint, %(tenant)s, 't', %(settings)s, 8, %(odd)s);
INSERT INTO brain.outbox_claims (consumer, outbox_id, tenant_id, generation, until)
    VALUES (%(tenant)s, 1, %(tenant)s, 1, now());
INSERT INTO brain.vector_spaces (name, embedder, dimensions, state)
    VALUES ('s' || substr(md5(%(tenant)s), 1, 9), 'e@r', 384, 'retired');
INSERT INTO brain.roles (tenant_id, name, description, permissions)
    VALUES (%(tenant)s, 'own', %(odd)s, ARRAY['models:read']);
INSERT INTO brain.users (tenant_id, id, email, email_key, name, preferences)
    VALUES (%(tenant)s, 'usr_x', %(odd)s, %(odd)s, %(odd)s, %(settings)s);
INSERT INTO brain.sessions (tenant_id, id, user_id, expires_at) VALUES (%(tenant)s, 's', 'usr_x', 'infinity');
INSERT INTO brain.refresh_tokens (tenant_id, session_id, hash) VALUES (%(tenant)s, 's', '\\x00ff');
INSERT INTO brain.revoked_tokens VALUES (%(tenant)s, 'jti', 'infinity');
INSERT INTO brain.clients (tenant_id, id, name, secret_hash, redirect_uris, grants, role, scopes)
    VALUES (%(tenant)s, 'cli_' || %(tenant)s, %(odd)s, '\\x00ff', ARRAY['https://a.example/?x={"}'],
        ARRAY['authorization_code'], 'member', ARRAY['models:read']);
INSERT INTO brain.auth_codes (tenant_id, hash, client_id, user_id, redirect_uri, challenge, session_id, expires_at)
    VALUES (%(tenant)s, '\\x00ff', 'cli_' || %(tenant)s, 'usr_x', %(odd)s, 'c', 's', 'infinity');
INSERT INTO brain.products (tenant_id, id, title, description, price, category, group_id, attributes)
    VALUES (%(tenant)s, 'sku', %(odd)s, %(odd)s, 0.10, %(odd)s, %(odd)s,
        jsonb_build_object(%(odd)s::text, %(odd)s::text));
INSERT INTO brain.product_vectors (tenant_id, product_id, text_hash, space)
    VALUES (%(tenant)s, 'sku', gen_random_uuid(), 's');
INSERT INTO brain.audit (tenant_id, id, actor, action, detail)
    VALUES (%(tenant)s, 'a', %(settings)s, 'x', %(settings)s);
INSERT INTO brain.signing_keys (id, algorithm, public, sealed, signs_from)
    VALUES (%(tenant)s, 'EdDSA', %(settings)s, %(settings)s, '-infinity');
INSERT INTO brain.webhooks (tenant_id, id, url, events, description, secret, secret_before)
    VALUES (%(tenant)s, 'whk_x', %(odd)s, ARRAY['turn.*', '{"}'], %(odd)s, %(settings)s, %(settings)s);
INSERT INTO brain.channels (tenant_id, id, kind, name, settings, secret)
    VALUES (%(tenant)s, 'chn_' || %(tenant)s, 'webhook', %(odd)s, %(settings)s, %(settings)s);
INSERT INTO brain.channel_bindings (tenant_id, channel_id, thread, conversation_id, channel_user)
    SELECT tenant_id, 'chn_' || tenant_id, %(odd)s, id, %(odd)s FROM brain.conversations
    WHERE tenant_id = %(tenant)s;
INSERT INTO brain.channel_messages (tenant_id, channel_id, external_id, conversation_id, turn_id, message_id)
    VALUES (%(tenant)s, 'chn_' || %(tenant)s, %(odd)s, 'conv_x', 'turn_x', 'msg_x');
INSERT INTO brain.delivery_lanes (tenant_id, subscriber, stream, webhook_id, due, holder, held_until)
    VALUES (%(tenant)s, 'whk_x', %(odd)s, 'whk_x', 'infinity', gen_random_uuid(), '-infinity');
INSERT INTO brain.deliveries (tenant_id, id, subscriber, stream, event_id, type, event, answer)
    VALUES (%(tenant)s, 'dlv_x', 'whk_x', %(odd)s, 'evt_x', 't', %(settings)s, %(odd)s);
INSERT INTO brain.event_topics (name, patterns) VALUES ('t' || substr(md5(%(tenant)s), 1, 9), ARRAY['turn.*']);
INSERT INTO brain.limits_told (tenant_id, kind, told_at) VALUES (%(tenant)s, %(odd)s, '-infinity');
INSERT INTO brain.catalogue_sources (tenant_id, url, auth, header, sealed, timeout_ms)
    VALUES (%(tenant)s, %(odd)s, 'header', %(odd)s, %(settings)s, 100);
INSERT INTO brain.tool_servers (tenant_id, id, name, url, auth, sealed, allow, tools)
    VALUES (%(tenant)s, 'mcp_x', %(odd)s, %(odd)s, 'bearer', %(settings)s, ARRAY[%(odd)s],
        jsonb_build_array(%(odd)s::text));
INSERT INTO brain.tool_consents (tenant_id, user_id, server_id) VALUES (%(tenant)s, %(odd)s, 'mcp_x');
INSERT INTO brain.tool_calls (tenant_id, turn_id, round, place, call_id, name, server_id, server_name, tool, arguments,
        repeatable, state, result)
    SELECT tenant_id, id, 0, 0, %(odd)s, 'n', 'mcp_x', %(odd)s, 't', %(odd)s, false, 'done', %(odd)s FROM brain.turns
    WHERE tenant_id = %(tenant)s LIMIT 1;
SELECT brain.access_changed(%(tenant)s, 'tenant', %(tenant)s);
"""
KEY = "k" * 40  # of the first tenant's operator
ENDS_SIGN_INS = {"sessions": ["revoked_at"], "users": ["tokens_from"], "access_version": ["version"]}
EVERY_BYTE = bytes(range(256))
JSON = Jsonb({"odd": ODD, "number": 12345678901234567890.25, "none": None})

SECTIONS = Jsonb([{"since": 1, "until": 1, "seq": 2, "text": ODD, "made_by": "extractive"}])
FACTS = Jsonb([{"key": ODD, "value": ODD, "order": 1}])


async def fill(url: str, artefact: int = len(EVERY_BYTE)) -> list[ConversationKey]:
    """Two tenants, of each one conversation with an answered turn and one that runs, and a row of every other kind.

    `artefact`: bytes of a tenant's largest value.
    """
    pool = await open_pool(url, 2)
    store = PostgresConversations(pool)
    keys = []
    tenants = [bootstrap(url, KEY)[0], f"ten_{uuid.uuid4().hex}"]
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, %s)", [tenants[1], ODD])
    for tenant in tenants:
        keys.append(key := make_conversation(url, tenant))
        owner = (await store.activate(key, str(uuid.uuid4()))).ownership
        send = make_send(key, ODD, metadata={"odd": ODD})
        await answer(store, key, owner, send)
        await store.accept(key, owner, make_send(key, "it runs"))
        values = {"tenant": tenant, "odd": ODD, "artefact": EVERY_BYTE * (artefact // 256), "settings": JSON}
        values |= {"sections": SECTIONS, "facts": FACTS}
        with psycopg.connect(url) as connection:
            for statement in ROWS.split(";\n"):
                if statement:
                    connection.execute(statement, values)
    await pool.close()
    return keys


async def answer(store: PostgresConversations, key: ConversationKey, owner: Ownership, send: Send) -> None:
    """A turn from its beginning to its end."""
    accepted = await store.accept(key, owner, send)
    turn = UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)
    await store.finish(key, owner, turn, 1, make_reply(ODD))


def everything(url: str) -> dict[str, list[Any]]:
    """All rows of each table, but of hosts, claims and owners, which no restore brings back, and words; and without
    what ends sign-ins, as a restore does."""
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'brain'::regnamespace AND relkind = 'r'"
        ).fetchall()
        found = {}
        for (name,) in names:
            rows = sql.SQL("SELECT to_jsonb(t) - %s::text[] FROM {} AS t ORDER BY 1")
            without = ["activation", "host", *ENDS_SIGN_INS.get(name, ())]
            found[name] = connection.execute(rows.format(sql.Identifier("brain", name)), [without]).fetchall()
    del found["hosts"], found["outbox_claims"], found["message_words"]
    return found


def shape(url: str) -> dict[str, list[Any]]:
    """Who may do what in the schema, and what watches over it."""
    queries = {
        "tables": "SELECT relname::text, relkind, relrowsecurity, relforcerowsecurity, relowner::regrole::text,"
        " relacl::text FROM pg_class WHERE relnamespace = 'brain'::regnamespace",
        "functions": "SELECT oid::regprocedure::text, proowner::regrole::text, proacl::text FROM pg_proc"
        " WHERE pronamespace = 'brain'::regnamespace",
        "triggers": "SELECT tgrelid::regclass::text, tgname::text, tgenabled FROM pg_trigger WHERE NOT tgisinternal",
        "policies": "SELECT tablename::text, policyname::text, roles::text, cmd, qual FROM pg_policies"
        " WHERE schemaname = 'brain'",
        "schema": "SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'brain'",
        "revision": "SELECT version_num FROM brain_schema_version",
    }
    with psycopg.connect(url) as connection:
        return {name: sorted(connection.execute(query).fetchall()) for name, query in queries.items()}
