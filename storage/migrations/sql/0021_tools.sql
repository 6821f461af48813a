-- Servers of tools that tenants register, their users' consent, and the calls that turns make.
-- Code of before runs on it: it knows nothing of these.

CREATE TABLE brain.tool_servers (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    url text NOT NULL,
    auth text NOT NULL DEFAULT 'none' CHECK (auth IN ('none', 'bearer', 'header')),
    sealed jsonb,
    allow text[] NOT NULL DEFAULT '{}',
    idempotent text[] NOT NULL DEFAULT '{}',
    consent text NOT NULL DEFAULT 'none' CHECK (consent IN ('none', 'user')),
    roles text[],
    tools jsonb NOT NULL DEFAULT '[]',  -- as the server listed them
    error text,
    listed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    CHECK ((auth = 'none') = (sealed IS NULL))
);

CREATE TABLE brain.tool_consents (  -- users may be known outside alone: no foreign key to ours
    tenant_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    server_id text COLLATE "C" NOT NULL,
    given_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, user_id, server_id),
    FOREIGN KEY (tenant_id, server_id) REFERENCES brain.tool_servers ON DELETE CASCADE
);
CREATE INDEX tool_consents_of_server ON brain.tool_consents (tenant_id, server_id);

CREATE TABLE brain.tool_calls (
    tenant_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    round integer NOT NULL,
    place integer NOT NULL,
    call_id text NOT NULL,
    name text NOT NULL,
    server_id text COLLATE "C" NOT NULL,  -- no foreign key: what was called is told, though its server is gone
    server_name text NOT NULL,
    tool text NOT NULL,
    arguments text NOT NULL,
    repeatable boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('planned', 'started', 'done', 'failed', 'unknown')),
    result text,
    started_by uuid,
    tries integer NOT NULL DEFAULT 0,
    ms double precision,
    planned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, turn_id, round, place),
    FOREIGN KEY (tenant_id, turn_id) REFERENCES brain.turns ON DELETE CASCADE
);

CREATE FUNCTION brain.plan_tool_calls(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_calls jsonb)
RETURNS void LANGUAGE plpgsql AS $$
-- Write the calls of a round down before any of them is made. Those that stand already stay as they are.
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    IF NOT EXISTS (SELECT FROM brain.turns t WHERE t.tenant_id = p_tenant AND t.id = p_turn
            AND t.conversation_id = p_conversation AND t.status = 'running') THEN
        RAISE EXCEPTION 'there is no such turn that runs' USING ERRCODE = 'BR404';
    END IF;
    INSERT INTO brain.tool_calls (tenant_id, turn_id, round, place, call_id, name, server_id, server_name, tool, arguments,
            repeatable, state, result)
        SELECT p_tenant, p_turn, c.round, c.place, c.call_id, c.name, c.server, c.server_name, c.tool, c.arguments,
            c.repeatable, c.state, c.result
        FROM jsonb_to_recordset(p_calls) AS c(round integer, place integer, call_id text, name text, server text,
            server_name text, tool text, arguments text, repeatable boolean, state text, result text)
        WHERE c.state IN ('planned', 'failed')
        ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION brain.start_tool_calls(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_round integer, p_by uuid)
RETURNS jsonb LANGUAGE plpgsql AS $$
-- Take the calls of a round up: what is planned is started. What was started before is started again where it may be
-- repeated, else its outcome is unknown. All calls of the round as they stand then: the started ones are to be made.
-- `p_by` names this one start, so that it may be asked for again after a lost connection.
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.tool_calls c SET started_by = p_by,
            state = CASE WHEN c.state = 'planned' OR c.repeatable THEN 'started' ELSE 'unknown' END,
            tries = c.tries + CASE WHEN c.state = 'planned' OR c.repeatable THEN 1 ELSE 0 END,
            started_at = CASE WHEN c.state = 'planned' OR c.repeatable THEN clock_timestamp() ELSE c.started_at END,
            ended_at = CASE WHEN c.state = 'started' AND NOT c.repeatable THEN clock_timestamp() END
        WHERE c.tenant_id = p_tenant AND c.turn_id = p_turn AND c.round = p_round
            AND c.state IN ('planned', 'started') AND c.started_by IS DISTINCT FROM p_by;
    RETURN (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.place), '[]') FROM brain.tool_calls c
        WHERE c.tenant_id = p_tenant AND c.turn_id = p_turn AND c.round = p_round);
END $$;

CREATE FUNCTION brain.end_tool_call(
    p_tenant text, p_turn text, p_round integer, p_place integer, p_state text, p_result text, p_ms double precision)
RETURNS boolean LANGUAGE plpgsql AS $$
-- How a started call ended. Not fenced: it tells what happened, whoever owns the conversation by then.
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    UPDATE brain.tool_calls c SET state = p_state, result = p_result, ms = p_ms, ended_at = clock_timestamp()
        WHERE c.tenant_id = p_tenant AND c.turn_id = p_turn AND c.round = p_round AND c.place = p_place
            AND c.state = 'started' AND p_state IN ('done', 'failed', 'unknown');
    RETURN FOUND;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['tool_servers', 'tool_consents', 'tool_calls'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.tool_servers TO brain_app;
GRANT SELECT, INSERT, DELETE ON brain.tool_consents TO brain_app;
GRANT SELECT, INSERT, UPDATE ON brain.tool_calls TO brain_app;

DO $$
DECLARE f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['brain.plan_tool_calls(text, text, bigint, uuid, text, jsonb)'::regprocedure,
        'brain.start_tool_calls(text, text, bigint, uuid, text, integer, uuid)'::regprocedure,
        'brain.end_tool_call(text, text, integer, integer, text, text, double precision)'::regprocedure] LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
    END LOOP;
END $$;
