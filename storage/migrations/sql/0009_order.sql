CREATE OR REPLACE FUNCTION brain.accept_turn(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid,
    p_caller text, p_key text, p_hash bytea,
    p_turn text, p_message text, p_content text, p_model text, p_parameters jsonb, p_metadata jsonb,
    p_live boolean, p_understand boolean, p_reject_if_busy boolean,
    p_regenerates text DEFAULT NULL, p_models text[] DEFAULT '{}', p_keep text DEFAULT 'first',
    p_reserve numeric DEFAULT NULL,
    OUT outcome text, OUT seq bigint, OUT turn_status text, OUT at timestamptz, OUT turn_id text)
LANGUAGE plpgsql AS $$
-- Outcomes: accepted, replayed, mismatch, and 'budget' where the hard limit forbids it: that commits its event alone.
DECLARE
    found_key brain.idempotency;
    v_status text;
    v_held text;
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
    IF p_regenerates IS NOT NULL THEN
        SELECT asked.seq INTO seq FROM brain.messages named JOIN brain.messages asked
            ON asked.tenant_id = named.tenant_id AND asked.conversation_id = named.conversation_id
                AND asked.seq = named.turn_order AND asked.role = 'user'
            WHERE named.tenant_id = p_tenant AND named.id = p_regenerates AND named.conversation_id = p_conversation;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no such message' USING ERRCODE = 'BR404';
        END IF;
    END IF;
    v_held := brain.hold(p_tenant, p_reserve);
    IF v_held = 'refused' THEN
        SELECT c.status INTO v_status FROM brain.conversations c WHERE c.tenant_id = p_tenant AND c.id = p_conversation;
        IF v_status <> 'active' THEN
            RAISE EXCEPTION 'the conversation has ended' USING ERRCODE = 'BR409';
        END IF;
        DELETE FROM brain.idempotency i WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key;
        outcome := 'budget';
        RETURN;
    END IF;
    -- Turns stand in the order of `created_at` for whoever takes them over, also where the clock was put back meanwhile.
    SELECT greatest(clock_timestamp(), max(t.created_at) + interval '1 microsecond') INTO at FROM brain.turns t
        WHERE t.tenant_id = p_tenant AND t.conversation_id = p_conversation AND t.status IN ('queued', 'running');
    UPDATE brain.conversations c SET updated_at = at,
            next_seq = c.next_seq + CASE WHEN p_regenerates IS NULL THEN 1 ELSE 0 END,
            message_count = c.message_count + CASE WHEN p_regenerates IS NULL THEN 1 ELSE 0 END
        WHERE c.tenant_id = p_tenant AND c.id = p_conversation
        RETURNING coalesce(accept_turn.seq, c.next_seq - 1), c.status INTO seq, v_status;
    IF v_status <> 'active' THEN
        RAISE EXCEPTION 'the conversation has ended' USING ERRCODE = 'BR409';
    END IF;
    IF p_regenerates IS NULL THEN
        INSERT INTO brain.messages
                (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status, metadata, created_at)
            VALUES (p_tenant, p_conversation, seq, p_message, p_turn, seq, 'user', p_content, 'completed', p_metadata,
                at);
    END IF;
    INSERT INTO brain.turns (tenant_id, id, conversation_id, user_seq, status, requested_model, parameters, live,
            understand, caller, regenerates, models, keep, reserved_usd, created_at, started_at)
        VALUES (p_tenant, p_turn, p_conversation, seq, turn_status, p_model, p_parameters, p_live, p_understand,
            p_caller, p_regenerates, p_models, p_keep, CASE v_held WHEN 'held' THEN p_reserve END, at,
            CASE turn_status WHEN 'running' THEN at END);
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant,
        CASE WHEN p_regenerates IS NULL THEN 'message.received' ELSE 'message.regenerating' END,
        jsonb_build_object('conversation_id', p_conversation, 'message_id', coalesce(p_regenerates, p_message),
            'turn_id', p_turn, 'seq', seq));
    outcome := 'accepted';
    turn_id := p_turn;
END $$;

CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)
LANGUAGE sql IMMUTABLE AS $$ SELECT '0009', '0004' $$;
