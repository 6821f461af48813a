-- Roles. `brain_app` serves requests and owns nothing; `brain_definer` owns the few functions that precede any tenant.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brain_app') THEN
        CREATE ROLE brain_app NOLOGIN NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brain_definer') THEN
        CREATE ROLE brain_definer NOLOGIN NOBYPASSRLS;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- two installations in one cluster at once
END $$;
DO $$ BEGIN
    -- Roles belong to the server: of a second owner on the same server its administrator makes a member.
    GRANT brain_app TO CURRENT_USER;
    GRANT brain_definer TO CURRENT_USER;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;

CREATE SCHEMA IF NOT EXISTS brain;
GRANT USAGE ON SCHEMA brain TO brain_app, brain_definer;

CREATE FUNCTION brain.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('brain.tenant', true);

CREATE TABLE brain.tenants (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE brain.api_keys (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    role text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE brain.conversations (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    user_id text,
    title text,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'ended')),
    metadata jsonb NOT NULL DEFAULT '{}',
    system_prompt text,
    message_count integer NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1,
    epoch bigint NOT NULL DEFAULT 0,
    activation uuid,
    host uuid,
    window_from bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE INDEX conversations_of_user ON brain.conversations (tenant_id, user_id, id);

CREATE TABLE brain.turns (
    tenant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    user_seq bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    attempt integer NOT NULL DEFAULT 1,
    cancel_requested boolean NOT NULL DEFAULT false,
    requested_model text NOT NULL,
    parameters jsonb NOT NULL DEFAULT '{}',
    live boolean NOT NULL,
    understand boolean NOT NULL,
    model text,
    intent jsonb,
    usage jsonb,
    cost_usd double precision,
    error jsonb,
    layout jsonb,
    trace jsonb,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES brain.conversations ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX turns_unfinished ON brain.turns (tenant_id, conversation_id, user_seq)
    WHERE status IN ('queued', 'running');
CREATE INDEX turns_of_conversation ON brain.turns (tenant_id, conversation_id, user_seq);

CREATE TABLE brain.messages (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    turn_order bigint NOT NULL,  -- the user message's seq: history is told in order of turns
    role text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content text NOT NULL,
    status text NOT NULL CHECK (status IN ('completed', 'cancelled', 'failed')),
    model text,
    usage jsonb,
    cost_usd double precision,
    citations jsonb NOT NULL DEFAULT '[]',
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES brain.conversations ON DELETE CASCADE
);
CREATE UNIQUE INDEX messages_id ON brain.messages (tenant_id, id);
CREATE UNIQUE INDEX messages_one_reply ON brain.messages (tenant_id, turn_id) WHERE role = 'assistant';

-- The tables that every turn writes have no foreign key to tenants: its row would be locked by all of them at once.
CREATE TABLE brain.idempotency (
    tenant_id text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body_hash bytea NOT NULL,
    turn_id text COLLATE "C",
    response jsonb,  -- of a creation that is no turn
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, caller, key)
);
CREATE INDEX idempotency_age ON brain.idempotency USING brin (created_at);

CREATE TABLE brain.usage (
    tenant_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    model text NOT NULL,
    provider text,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost_usd double precision,
    estimated boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, turn_id, attempt)
);

CREATE TABLE brain.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    topic text NOT NULL,
    payload jsonb NOT NULL,
    confirmed text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE brain.outbox_consumers (name text PRIMARY KEY);

CREATE TABLE brain.hosts (
    id uuid PRIMARY KEY,
    renewed_at timestamptz NOT NULL
);

-- Row-level security: enabled and forced, also for the owner of the tables.
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['api_keys', 'conversations', 'turns', 'messages', 'idempotency', 'usage', 'outbox'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
ALTER TABLE brain.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON brain.tenants TO brain_app USING (id = brain.tenant());
CREATE POLICY administration ON brain.tenants TO CURRENT_USER USING (true);

GRANT SELECT ON brain.tenants, brain.api_keys TO brain_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    brain.conversations, brain.turns, brain.messages, brain.idempotency, brain.hosts TO brain_app;
GRANT SELECT, INSERT ON brain.usage, brain.outbox TO brain_app;
GRANT SELECT ON brain.outbox_consumers TO brain_app;
CREATE POLICY sweep ON brain.turns FOR SELECT TO brain_definer USING (true);
CREATE POLICY sweep ON brain.conversations FOR SELECT TO brain_definer USING (true);
CREATE POLICY sweep ON brain.idempotency TO brain_definer USING (true);
CREATE POLICY sweep ON brain.outbox TO brain_definer USING (true);
CREATE POLICY sign_in ON brain.api_keys FOR SELECT TO brain_definer USING (true);
CREATE POLICY sign_in ON brain.tenants FOR SELECT TO brain_definer USING (true);
GRANT SELECT ON brain.turns, brain.conversations, brain.hosts, brain.api_keys, brain.tenants, brain.outbox_consumers
    TO brain_definer;
GRANT SELECT, DELETE ON brain.idempotency, brain.outbox TO brain_definer;
