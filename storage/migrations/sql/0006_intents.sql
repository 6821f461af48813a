-- A tenant's intents, the heads that were trained from them, and the trainings as jobs. Code of before runs on it: it
-- knows nothing of these tables. The index of turns by intent is built afterwards, see storage/migrations/indexes.py.
CREATE TABLE brain.intents (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    description text NOT NULL DEFAULT '',
    examples jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(examples) = 'array'),
    slots jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(slots) = 'array'),
    needs_products boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX intents_name ON brain.intents (tenant_id, name);

CREATE TABLE brain.intent_trainings (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'completed', 'failed')),
    progress double precision NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
    phase text NOT NULL DEFAULT 'queued',
    version integer,
    metrics jsonb NOT NULL DEFAULT '{}',
    error jsonb,
    request jsonb,  -- what is trained from; null once it has ended
    attempt integer NOT NULL DEFAULT 0,
    claimed_by uuid,
    leased_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX intent_trainings_open ON brain.intent_trainings (created_at, tenant_id, id)
    WHERE status IN ('queued', 'running');
CREATE UNIQUE INDEX intent_trainings_one_at_a_time ON brain.intent_trainings (tenant_id) WHERE status = 'running';

CREATE TABLE brain.intent_heads (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    version integer NOT NULL CHECK (version > 0),
    embedder text NOT NULL,
    artefact bytea NOT NULL CHECK (octet_length(artefact) <= 16777216),
    definitions jsonb NOT NULL DEFAULT '{}',  -- of its intents, as they were: description, slots, needs_products
    metrics jsonb NOT NULL DEFAULT '{}',
    fingerprint bytea NOT NULL,
    training_id text COLLATE "C" NOT NULL,
    effort text NOT NULL CHECK (effort IN ('first', 'best')),
    active boolean NOT NULL DEFAULT false,
    activated_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, version)
);
ALTER TABLE brain.intent_heads ALTER COLUMN artefact SET STORAGE EXTERNAL;  -- compressed already
CREATE UNIQUE INDEX intent_heads_active ON brain.intent_heads (tenant_id) INCLUDE (version, activated_at) WHERE active;
CREATE UNIQUE INDEX intent_heads_once ON brain.intent_heads (tenant_id, training_id, effort);

CREATE FUNCTION brain.claim_intent_training(
    p_trainer uuid, p_lease interval, p_attempts integer, OUT tenant_id text, OUT id text, OUT attempt integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The oldest training that waits, or whose trainer's lease ran out: one at a time of each tenant. All null: none.
BEGIN
    UPDATE brain.intent_trainings t SET status = 'failed', completed_at = clock_timestamp(), request = NULL,
            error = jsonb_build_object('message', 'the training was interrupted ' || p_attempts || ' times',
                'type', 'internal_error', 'param', NULL, 'code', 'training_interrupted')
        WHERE t.status = 'running' AND t.leased_until < clock_timestamp() AND t.attempt >= p_attempts;
    UPDATE brain.intent_trainings t SET status = 'running', claimed_by = p_trainer, attempt = t.attempt + 1,
            leased_until = clock_timestamp() + p_lease, started_at = coalesce(t.started_at, clock_timestamp())
        WHERE (t.tenant_id, t.id) = (
            SELECT w.tenant_id, w.id FROM brain.intent_trainings w
            WHERE w.status = 'running' AND w.leased_until < clock_timestamp()
                OR w.status = 'queued' AND NOT EXISTS (SELECT FROM brain.intent_trainings r
                    WHERE r.tenant_id = w.tenant_id AND r.status = 'running')
            ORDER BY w.created_at, w.tenant_id, w.id LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING t.tenant_id, t.id, t.attempt INTO tenant_id, id, attempt;
EXCEPTION WHEN unique_violation THEN  -- another trainer took one of this tenant's in this moment
    tenant_id := NULL;
END $$;

CREATE FUNCTION brain.active_intent_heads(
    p_tenants text[], OUT tenant_id text, OUT version integer, OUT activated_at timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Which versions are active: ids only.
    SELECT h.tenant_id, h.version, h.activated_at FROM brain.intent_heads h
        WHERE h.active AND h.tenant_id = ANY (p_tenants)
$$;

CREATE FUNCTION brain.turns_by_intent(
    p_intent text, p_least double precision, p_most double precision, p_after text, p_descending boolean, p_limit integer)
RETURNS SETOF text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Ids of the tenant's turns that answer a message taken for an intent, in order of ids. Row-level security lets no index
-- on what stands inside of a jsonb be used, since that might leak; here the tenant is a condition like the others.
BEGIN
    RETURN QUERY EXECUTE 'SELECT t.id FROM brain.turns t'
        ' WHERE t.tenant_id = brain.tenant() AND t.intent IS NOT NULL AND t.regenerates IS NULL'
        || CASE WHEN p_intent IS NOT NULL THEN ' AND t.intent->>''name'' = $1' ELSE '' END
        || CASE WHEN p_least IS NOT NULL THEN ' AND (t.intent->>''confidence'')::double precision >= $2' ELSE '' END
        || CASE WHEN p_most IS NOT NULL THEN ' AND (t.intent->>''confidence'')::double precision <= $3' ELSE '' END
        || CASE WHEN p_after IS NULL THEN '' WHEN p_descending THEN ' AND t.id < $4' ELSE ' AND t.id > $4' END
        || ' ORDER BY t.id ' || CASE WHEN p_descending THEN 'DESC' ELSE 'ASC' END || ' LIMIT $5'
        USING p_intent, p_least, p_most, p_after, p_limit;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['intents', 'intent_trainings', 'intent_heads'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
CREATE POLICY claims ON brain.intent_trainings TO brain_definer USING (true);
CREATE POLICY versions ON brain.intent_heads FOR SELECT TO brain_definer USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.intents, brain.intent_trainings, brain.intent_heads TO brain_app;
GRANT SELECT, UPDATE ON brain.intent_trainings TO brain_definer;
GRANT SELECT ON brain.intent_heads TO brain_definer;

REVOKE ALL ON FUNCTION brain.claim_intent_training(uuid, interval, integer), brain.active_intent_heads(text[]),
    brain.turns_by_intent(text, double precision, double precision, text, boolean, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.claim_intent_training(uuid, interval, integer), brain.active_intent_heads(text[]),
    brain.turns_by_intent(text, double precision, double precision, text, boolean, integer) TO brain_app;
GRANT CREATE ON SCHEMA brain TO brain_definer;
ALTER FUNCTION brain.claim_intent_training(uuid, interval, integer) OWNER TO brain_definer;
ALTER FUNCTION brain.active_intent_heads(text[]) OWNER TO brain_definer;
ALTER FUNCTION brain.turns_by_intent(text, double precision, double precision, text, boolean, integer)
    OWNER TO brain_definer;
REVOKE CREATE ON SCHEMA brain FROM brain_definer;

CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)
LANGUAGE sql IMMUTABLE AS $$ SELECT '0006', '0004' $$;
