-- Erasure as jobs that go on after a crash, the public keys of their receipts, and what ledger and outbox give up.
-- Code of before runs on it: it knows nothing of these.

CREATE TABLE brain.erasures (
    tenant_id text COLLATE "C" NOT NULL,  -- no foreign key: it outlives what it tells of
    id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('user', 'tenant')),
    subject bytea NOT NULL,  -- HMAC-SHA-256 of who is erased: whoever asks again shows the name itself
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz,  -- from Postgres; vectors may be on their way
    completed_at timestamptz,
    removed jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX erasures_of_subject ON brain.erasures (tenant_id, subject, requested_at DESC);
CREATE UNIQUE INDEX erasures_open ON brain.erasures (tenant_id, kind, subject) WHERE completed_at IS NULL;

CREATE TABLE brain.erasure_steps (  -- a conversation in the hands of an erasure
    tenant_id text COLLATE "C" NOT NULL,
    erasure_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    counts jsonb NOT NULL,
    turns jsonb NOT NULL,  -- [id, attempts] of each
    erased_at timestamptz,
    PRIMARY KEY (tenant_id, erasure_id, conversation_id),
    FOREIGN KEY (tenant_id, erasure_id) REFERENCES brain.erasures ON DELETE CASCADE
);

CREATE TABLE brain.receipt_keys (  -- public: with them receipts of earlier master keys can still be checked
    kid text COLLATE "C" PRIMARY KEY,
    public jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION brain.erase_events(p_conversations text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Events that tell of these conversations of the transaction's tenant, of all of its conversations where null, as far as
-- each consumer has confirmed them: what one has still in its hands stays, for it may have to be told again.
DECLARE
    v_tenant text := brain.tenant();
    v_gone bigint;
    v_aside bigint;
BEGIN
    DELETE FROM outbox o WHERE o.tenant_id = v_tenant
        AND o.topic NOT IN ('conversation.deleted', 'tenant.deleted')
        AND (p_conversations IS NULL OR o.payload->>'conversation_id' = ANY (p_conversations))
        AND NOT EXISTS (SELECT FROM outbox_consumers c WHERE NOT c.name = ANY (o.confirmed));
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    DELETE FROM outbox_set_aside a WHERE a.tenant_id = v_tenant
        AND a.topic NOT IN ('conversation.deleted', 'tenant.deleted')
        AND (p_conversations IS NULL OR a.payload->>'conversation_id' = ANY (p_conversations));
    GET DIAGNOSTICS v_aside = ROW_COUNT;
    RETURN v_gone + v_aside;
END $$;

CREATE FUNCTION brain.unlink_usage(p_users text[], p_callers text[], p_turns text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Rows of the transaction's tenant's ledger that tell no more whose they were: of these users, callers and turns, all of
-- them where all three are null. The amounts stay.
DECLARE
    v_tenant text := brain.tenant();
    v_changed bigint;
    v_more bigint;
BEGIN
    IF p_users IS NULL AND p_callers IS NULL AND p_turns IS NULL THEN
        UPDATE usage u SET user_id = NULL, caller = NULL, conversation_id = NULL WHERE u.tenant_id = v_tenant
            AND (u.user_id IS NOT NULL OR u.caller IS NOT NULL OR u.conversation_id IS NOT NULL);
        GET DIAGNOSTICS v_changed = ROW_COUNT;
        RETURN v_changed;
    END IF;
    UPDATE usage u SET user_id = NULL, conversation_id = NULL
        WHERE u.tenant_id = v_tenant AND u.turn_id = ANY (p_turns)
            AND (u.user_id IS NOT NULL OR u.conversation_id IS NOT NULL);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    UPDATE usage u SET user_id = NULL, caller = NULL WHERE u.tenant_id = v_tenant AND u.user_id = ANY (p_users);
    GET DIAGNOSTICS v_more = ROW_COUNT;
    UPDATE usage u SET user_id = NULL, caller = NULL WHERE p_callers <> '{}' AND u.tenant_id = v_tenant
        AND u.caller = ANY (p_callers);
    RETURN v_changed + v_more;
END $$;

CREATE FUNCTION brain.erase_user_keys(p_user text) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The ids of the API keys of a user of the transaction's tenant, which are gone.
DECLARE
    v_ids text[];
BEGIN
    WITH gone AS (DELETE FROM api_keys k WHERE k.tenant_id = brain.tenant() AND k.user_id = p_user AND k.role <> 'operator'
        RETURNING k.id)
    SELECT coalesce(array_agg(gone.id), '{}') INTO v_ids FROM gone;
    UPDATE api_keys k SET created_by = '' WHERE k.tenant_id = brain.tenant() AND k.created_by = p_user;
    PERFORM brain.access_changed(brain.tenant(), 'key', id) FROM unnest(v_ids) AS id;
    RETURN v_ids;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['erasures', 'erasure_steps'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE ON brain.erasures TO brain_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.erasure_steps TO brain_app;
GRANT SELECT, INSERT ON brain.receipt_keys TO brain_app;

-- Forced on every table that names a tenant: on the one that revision 0011 left to its grants alone, too.
ALTER TABLE brain.access_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.access_changes FORCE ROW LEVEL SECURITY;
CREATE POLICY work ON brain.access_changes TO brain_definer USING (true);
CREATE POLICY administration ON brain.access_changes TO CURRENT_USER USING (true);

CREATE POLICY unlink ON brain.usage FOR UPDATE TO brain_definer USING (true);
GRANT UPDATE (user_id, caller, conversation_id) ON brain.usage TO brain_definer;
GRANT DELETE ON brain.api_keys TO brain_definer;
GRANT INSERT ON brain.outbox TO brain_definer;  -- a deleted tenant is told of with the rights of what deletes it

DO $$
DECLARE f regprocedure;
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY['brain.erase_events(text[])'::regprocedure,
        'brain.unlink_usage(text[], text[], text[])'::regprocedure, 'brain.erase_user_keys(text)'::regprocedure] LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
