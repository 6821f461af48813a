-- OAuth clients and their codes, and messages that an agent puts into a user's conversation.
-- Additive: code of before runs on beside it.

CREATE TABLE brain.clients (  -- of OAuth 2 (RFC 6749)
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    secret_hash bytea,  -- null: a public client, which can keep no secret
    redirect_uris text[] NOT NULL DEFAULT '{}',
    grants text[] NOT NULL,
    role text NOT NULL CHECK (role <> 'operator'),  -- what it may do itself, by client credentials
    scopes text[],  -- null: all that the role has
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX clients_id ON brain.clients (id);

CREATE TABLE brain.auth_codes (
    tenant_id text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    redirect_uri text NOT NULL,
    challenge text NOT NULL,  -- of PKCE, S256 (RFC 7636)
    scopes text[],
    session_id text COLLATE "C" NOT NULL,  -- that it opens, and that ends when it is used again
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (tenant_id, hash),
    FOREIGN KEY (tenant_id, client_id) REFERENCES brain.clients ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES brain.users ON DELETE CASCADE
);
CREATE INDEX auth_codes_age ON brain.auth_codes (tenant_id, expires_at);
CREATE INDEX auth_codes_of_client ON brain.auth_codes (tenant_id, client_id);
CREATE INDEX auth_codes_of_user ON brain.auth_codes (tenant_id, user_id);

CREATE INDEX refresh_tokens_of_session ON brain.refresh_tokens (tenant_id, session_id);

CREATE FUNCTION brain.find_client(p_id text) RETURNS TABLE (tenant_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT c.tenant_id FROM brain.clients c JOIN brain.tenants t ON t.id = c.tenant_id
        WHERE c.id = p_id AND t.status = 'active'
$$;

CREATE FUNCTION brain.append_system_message(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid,
    p_caller text, p_key text, p_hash bytea, p_message text, p_content text, p_metadata jsonb,
    OUT outcome text, OUT message_id text)
LANGUAGE plpgsql AS $$
-- Outcomes: appended, replayed, mismatch. It belongs to no turn: its place in history is its own number.
DECLARE
    found_key brain.idempotency;
    v_seq bigint;
    v_status text;
    v_at timestamptz := clock_timestamp();
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    INSERT INTO brain.idempotency AS i (tenant_id, caller, key, body_hash, response)
        VALUES (p_tenant, p_caller, p_key, p_hash, jsonb_build_object('message_id', p_message))
        ON CONFLICT (tenant_id, caller, key) DO UPDATE
            SET body_hash = excluded.body_hash, turn_id = NULL, response = excluded.response, created_at = now()
            WHERE i.created_at < now() - interval '24 hours';
    IF NOT FOUND THEN
        SELECT * INTO found_key FROM brain.idempotency i
            WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key;
        message_id := found_key.response->>'message_id';
        outcome := CASE WHEN found_key.body_hash = p_hash AND message_id IS NOT NULL THEN 'replayed' ELSE 'mismatch' END;
        RETURN;
    END IF;
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.conversations c SET next_seq = c.next_seq + 1, message_count = c.message_count + 1, updated_at = v_at
        WHERE c.tenant_id = p_tenant AND c.id = p_conversation RETURNING c.next_seq - 1, c.status INTO v_seq, v_status;
    IF v_status <> 'active' THEN
        RAISE EXCEPTION 'the conversation has ended' USING ERRCODE = 'BR409';
    END IF;
    INSERT INTO brain.messages
            (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status, metadata, created_at)
        VALUES (p_tenant, p_conversation, v_seq, p_message, '', v_seq, 'system', p_content, 'completed', p_metadata, v_at);
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant, 'message.appended', jsonb_build_object(
        'conversation_id', p_conversation, 'message_id', p_message, 'seq', v_seq));
    outcome := 'appended';
    message_id := p_message;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['clients', 'auth_codes'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.clients, brain.auth_codes TO brain_app;
CREATE POLICY sign_in ON brain.clients FOR SELECT TO brain_definer USING (true);
GRANT SELECT ON brain.clients TO brain_definer;

DO $$
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    REVOKE ALL ON FUNCTION brain.find_client, brain.append_system_message FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION brain.find_client, brain.append_system_message TO brain_app;
    ALTER FUNCTION brain.find_client OWNER TO brain_definer;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
