-- A turn's writes, each one call and one transaction. SQLSTATEs: BR404 gone, BR409 ended, BRBSY busy, BRFEN fenced.

CREATE FUNCTION brain.fence(p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid)
RETURNS void LANGUAGE plpgsql AS $$
-- Lock the conversation for its owner, or say why not. The lock is waited for, and the claim read again after it.
BEGIN
    PERFORM FROM brain.conversations c
        WHERE c.tenant_id = p_tenant AND c.id = p_conversation AND c.epoch = p_epoch AND c.activation = p_activation
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM brain.conversations c WHERE c.tenant_id = p_tenant AND c.id = p_conversation) THEN
            RAISE EXCEPTION 'another host owns this conversation' USING ERRCODE = 'BRFEN';
        END IF;
        RAISE EXCEPTION 'there is no such conversation' USING ERRCODE = 'BR404';
    END IF;
END $$;

CREATE FUNCTION brain.activate(p_tenant text, p_conversation text, p_host uuid, p_activation uuid, p_recent integer)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    c brain.conversations;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    UPDATE brain.conversations SET epoch = epoch + 1, activation = p_activation, host = p_host
        WHERE tenant_id = p_tenant AND id = p_conversation RETURNING * INTO c;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such conversation' USING ERRCODE = 'BR404';
    END IF;
    RETURN jsonb_build_object(
        'conversation', to_jsonb(c),
        'recent', (SELECT coalesce(jsonb_agg(jsonb_build_array(turn_order, seq, role, content) ORDER BY seq), '[]')
            FROM brain.messages WHERE tenant_id = p_tenant AND conversation_id = p_conversation
                AND seq >= greatest(c.window_from, c.next_seq - p_recent)),
        'unfinished', (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object(
                'message_id', m.id, 'content', m.content, 'metadata', m.metadata) ORDER BY t.user_seq), '[]')
            FROM brain.turns t JOIN brain.messages m ON m.tenant_id = t.tenant_id
                AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq
            WHERE t.tenant_id = p_tenant AND t.conversation_id = p_conversation
                AND t.status IN ('queued', 'running')));
END $$;

CREATE FUNCTION brain.accept_turn(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid,
    p_caller text, p_key text, p_hash bytea,
    p_turn text, p_message text, p_content text, p_model text, p_parameters jsonb, p_metadata jsonb,
    p_live boolean, p_understand boolean, p_reject_if_busy boolean,
    OUT outcome text, OUT seq bigint, OUT turn_status text, OUT at timestamptz, OUT turn_id text)
LANGUAGE plpgsql AS $$
DECLARE
    found_key brain.idempotency;
    v_status text;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    INSERT INTO brain.idempotency AS i (tenant_id, caller, key, body_hash, turn_id)
        VALUES (p_tenant, p_caller, p_key, p_hash, p_turn)
        ON CONFLICT (tenant_id, caller, key) DO UPDATE
            SET body_hash = excluded.body_hash, turn_id = excluded.turn_id, response = NULL, created_at = now()
            WHERE i.created_at < now() - interval '24 hours';
    IF NOT FOUND THEN
        SELECT * INTO found_key FROM brain.idempotency i
            WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key;
        turn_id := found_key.turn_id;
        outcome := CASE WHEN found_key.body_hash = p_hash AND turn_id IS NOT NULL THEN 'replayed' ELSE 'mismatch' END;
        IF outcome = 'replayed' AND EXISTS (SELECT FROM brain.turns t WHERE t.tenant_id = p_tenant
                AND t.id = found_key.turn_id AND t.status IN ('queued', 'running')) THEN
            PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);  -- only its owner may take it up
        END IF;
        RETURN;
    END IF;
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    turn_status := CASE WHEN EXISTS (SELECT FROM brain.turns t WHERE t.tenant_id = p_tenant
        AND t.conversation_id = p_conversation AND t.status IN ('queued', 'running')) THEN 'queued' ELSE 'running' END;
    IF p_reject_if_busy AND turn_status = 'queued' THEN
        RAISE EXCEPTION 'a turn is running' USING ERRCODE = 'BRBSY';
    END IF;
    at := clock_timestamp();
    UPDATE brain.conversations c SET next_seq = c.next_seq + 1, message_count = c.message_count + 1, updated_at = at
        WHERE c.tenant_id = p_tenant AND c.id = p_conversation
        RETURNING c.next_seq - 1, c.status INTO seq, v_status;
    IF v_status <> 'active' THEN
        RAISE EXCEPTION 'the conversation has ended' USING ERRCODE = 'BR409';
    END IF;
    INSERT INTO brain.messages
            (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status, metadata, created_at)
        VALUES (p_tenant, p_conversation, seq, p_message, p_turn, seq, 'user', p_content, 'completed', p_metadata, at);
    INSERT INTO brain.turns (tenant_id, id, conversation_id, user_seq, status, requested_model, parameters, live,
            understand, created_at, started_at)
        VALUES (p_tenant, p_turn, p_conversation, seq, turn_status, p_model, p_parameters, p_live, p_understand, at,
            CASE turn_status WHEN 'running' THEN at END);
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant, 'message.received',
        jsonb_build_object('conversation_id', p_conversation, 'message_id', p_message, 'turn_id', p_turn, 'seq', seq));
    outcome := 'accepted';
    turn_id := p_turn;
END $$;

CREATE FUNCTION brain.start_turn(p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text)
RETURNS boolean LANGUAGE plpgsql AS $$
-- True if the turn's cancellation was asked for. Starting a turn that runs already is no error: its owner may repeat it.
DECLARE
    v_cancel boolean;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.turns SET status = 'running', started_at = coalesce(started_at, clock_timestamp())
        WHERE tenant_id = p_tenant AND id = p_turn AND status IN ('queued', 'running')
        RETURNING cancel_requested INTO v_cancel;
    RETURN v_cancel;
END $$;

CREATE FUNCTION brain.next_attempt(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_attempt integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.turns SET attempt = p_attempt
        WHERE tenant_id = p_tenant AND id = p_turn AND status = 'running' AND attempt <= p_attempt;
END $$;

CREATE FUNCTION brain.finish_turn(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_attempt integer,
    p_status text, p_message text, p_content text, p_model text, p_provider text, p_intent jsonb, p_usage jsonb,
    p_cost double precision, p_error jsonb, p_layout jsonb, p_trace jsonb, p_window_from bigint, p_estimated boolean,
    p_citations jsonb, OUT status text, OUT seq bigint, OUT at timestamptz, OUT again boolean)
LANGUAGE plpgsql AS $$
-- `again`: the turn had ended before; nothing was written. `seq` is null where no reply is kept.
DECLARE
    t brain.turns;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    SELECT * INTO t FROM brain.turns x WHERE x.tenant_id = p_tenant AND x.id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such turn' USING ERRCODE = 'BR404';
    END IF;
    again := t.status NOT IN ('queued', 'running');
    IF again THEN
        RETURN;
    END IF;
    status := CASE WHEN t.cancel_requested AND p_status = 'completed' THEN 'cancelled' ELSE p_status END;
    IF t.status = 'queued' AND status = 'completed' THEN
        RAISE EXCEPTION 'a queued turn cannot complete' USING ERRCODE = 'BRFEN';
    END IF;
    at := clock_timestamp();
    IF p_content <> '' OR status = 'completed' THEN
        UPDATE brain.conversations c SET next_seq = c.next_seq + 1, message_count = c.message_count + 1,
                window_from = greatest(c.window_from, p_window_from), updated_at = at
            WHERE c.tenant_id = p_tenant AND c.id = p_conversation RETURNING c.next_seq - 1 INTO seq;
        INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status,
                model, usage, cost_usd, citations, created_at)
            VALUES (p_tenant, p_conversation, seq, p_message, p_turn, t.user_seq, 'assistant', p_content, status,
                p_model, p_usage, p_cost, p_citations, at);
    END IF;
    UPDATE brain.turns x SET status = finish_turn.status, attempt = p_attempt, model = p_model, intent = p_intent,
            usage = p_usage, cost_usd = p_cost, error = p_error, layout = p_layout, trace = p_trace, completed_at = at
        WHERE x.tenant_id = p_tenant AND x.id = p_turn AND x.status IN ('queued', 'running');
    IF p_usage IS NOT NULL THEN
        INSERT INTO brain.usage (tenant_id, turn_id, attempt, conversation_id, model, provider, prompt_tokens,
                cached_tokens, completion_tokens, cost_usd, estimated, created_at)
            VALUES (p_tenant, p_turn, p_attempt, p_conversation, coalesce(p_model, ''), p_provider,
                (p_usage->>'prompt_tokens')::bigint, (p_usage->>'cached_tokens')::bigint,
                (p_usage->>'completion_tokens')::bigint, p_cost, p_estimated, at)
            ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant, 'turn.' || status, jsonb_build_object(
        'conversation_id', p_conversation, 'turn_id', p_turn, 'message_id', CASE WHEN seq IS NOT NULL THEN p_message END,
        'seq', seq));
END $$;

CREATE FUNCTION brain.change_conversation(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_fields jsonb, p_end boolean)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    c brain.conversations;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.conversations x SET
            title = CASE WHEN p_fields ? 'title' THEN p_fields->>'title' ELSE x.title END,
            user_id = CASE WHEN p_fields ? 'user_id' THEN p_fields->>'user_id' ELSE x.user_id END,
            system_prompt = CASE WHEN p_fields ? 'system_prompt' THEN p_fields->>'system_prompt' ELSE x.system_prompt END,
            metadata = CASE WHEN p_fields ? 'metadata' THEN p_fields->'metadata' ELSE x.metadata END,
            status = CASE WHEN p_end THEN 'ended' ELSE x.status END,
            updated_at = clock_timestamp()
        WHERE x.tenant_id = p_tenant AND x.id = p_conversation RETURNING * INTO c;
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant,
        CASE WHEN p_end THEN 'conversation.ended' ELSE 'conversation.updated' END,
        jsonb_build_object('conversation_id', p_conversation));
    RETURN to_jsonb(c);
END $$;

CREATE FUNCTION brain.delete_conversation(p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    DELETE FROM brain.conversations WHERE tenant_id = p_tenant AND id = p_conversation;
    INSERT INTO brain.outbox (tenant_id, topic, payload)
        VALUES (p_tenant, 'conversation.deleted', jsonb_build_object('conversation_id', p_conversation));
END $$;

-- What precedes any tenant: one function a purpose, ids only.

CREATE FUNCTION brain.find_api_key(p_hash bytea) RETURNS TABLE (tenant_id text, key_id text, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT k.tenant_id, k.id, k.role FROM brain.api_keys k JOIN brain.tenants t ON t.id = k.tenant_id
        WHERE k.hash = p_hash AND k.revoked_at IS NULL AND t.status = 'active'
$$;

CREATE FUNCTION brain.orphans(p_lease interval, p_limit integer) RETURNS TABLE (tenant_id text, conversation_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT DISTINCT t.tenant_id, t.conversation_id FROM brain.turns t
        JOIN brain.conversations c ON c.tenant_id = t.tenant_id AND c.id = t.conversation_id
        WHERE t.status IN ('queued', 'running') AND NOT EXISTS (
            SELECT FROM brain.hosts h WHERE h.id = c.host AND h.renewed_at > clock_timestamp() - p_lease)
        LIMIT p_limit
$$;

CREATE FUNCTION brain.unfinished_of(p_host uuid, p_age interval, p_limit integer)
RETURNS TABLE (tenant_id text, conversation_id text, turn_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT t.tenant_id, t.conversation_id, t.id FROM brain.turns t
        JOIN brain.conversations c ON c.tenant_id = t.tenant_id AND c.id = t.conversation_id
        WHERE t.status IN ('queued', 'running') AND c.host = p_host AND t.created_at < clock_timestamp() - p_age
        LIMIT p_limit
$$;

CREATE FUNCTION brain.prune() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    -- A bounded part of what may go; the number of removed rows, 0 when nothing is left to do.
    WITH keys AS (
        DELETE FROM brain.idempotency WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM brain.idempotency WHERE created_at < now() - interval '25 hours' LIMIT 5000))
        RETURNING 1
    ), events AS (
        DELETE FROM brain.outbox WHERE id = ANY (ARRAY(
            SELECT o.id FROM (SELECT * FROM brain.outbox ORDER BY id LIMIT 5000) o
                WHERE o.created_at < now() - interval '1 day' AND NOT EXISTS (
                    SELECT FROM brain.outbox_consumers c WHERE NOT c.name = ANY (o.confirmed))))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM keys) + (SELECT count(*) FROM events)
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA brain FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA brain TO brain_app;
GRANT EXECUTE ON FUNCTION brain.tenant() TO brain_definer;
GRANT CREATE ON SCHEMA brain TO brain_definer;
ALTER FUNCTION brain.find_api_key(bytea) OWNER TO brain_definer;
ALTER FUNCTION brain.orphans(interval, integer) OWNER TO brain_definer;
ALTER FUNCTION brain.unfinished_of(uuid, interval, integer) OWNER TO brain_definer;
ALTER FUNCTION brain.prune() OWNER TO brain_definer;
REVOKE CREATE ON SCHEMA brain FROM brain_definer;
