-- Money: `hold` before a call of a provider, `charge` after it. Who takes a budget's lock takes no other after it.

CREATE FUNCTION brain.open_budget(p_tenant text) RETURNS brain.budgets LANGUAGE plpgsql AS $$
-- The tenant's budget, locked and of the current period; NULL, without a lock, where its settings have none.
DECLARE
    wanted jsonb := (SELECT s.settings->'budget' FROM brain.model_settings s WHERE s.tenant_id = p_tenant);
    b brain.budgets;
    v_period text;
    v_starts date;
    v_expired numeric;
BEGIN
    IF wanted IS NULL OR jsonb_typeof(wanted) <> 'object' THEN
        RETURN NULL;
    END IF;
    INSERT INTO brain.budgets (tenant_id) VALUES (p_tenant) ON CONFLICT DO NOTHING;
    SELECT * INTO b FROM brain.budgets x WHERE x.tenant_id = p_tenant FOR NO KEY UPDATE;
    v_period := coalesce(wanted->>'period', 'month');
    v_starts := date_trunc(v_period, clock_timestamp() AT TIME ZONE 'UTC')::date;
    IF b.period <> v_period OR b.starts < v_starts THEN
        b.period := v_period;
        b.starts := v_starts;
        b.soft_told := NULL;
        b.hard_told := NULL;
        b.spent_usd := (SELECT coalesce(sum(u.cost_usd), 0) FROM brain.usage u
            WHERE u.tenant_id = p_tenant AND u.day >= v_starts);
    END IF;
    b.soft_usd := (wanted->>'soft_usd')::numeric;
    b.hard_usd := (wanted->>'hard_usd')::numeric;
    WITH gone AS (
        DELETE FROM brain.reservations r WHERE r.tenant_id = p_tenant AND r.expires_at < clock_timestamp()
        RETURNING r.usd
    )
    SELECT coalesce(sum(gone.usd), 0) INTO v_expired FROM gone;
    b.reserved_usd := greatest(b.reserved_usd - v_expired, 0);
    UPDATE brain.budgets x SET period = b.period, starts = b.starts, soft_usd = b.soft_usd, hard_usd = b.hard_usd,
            spent_usd = b.spent_usd, reserved_usd = b.reserved_usd, soft_told = b.soft_told, hard_told = b.hard_told
        WHERE x.tenant_id = p_tenant;
    RETURN b;
END $$;

CREATE FUNCTION brain.tell_budget(b brain.budgets, p_limit text, p_usd numeric) RETURNS void LANGUAGE sql AS $$
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (b.tenant_id, 'budget.' || p_limit || '_exceeded',
        jsonb_build_object('period', b.period, 'starts', b.starts, 'limit_usd', p_usd,
            'spent_usd', b.spent_usd, 'reserved_usd', b.reserved_usd))
$$;

CREATE FUNCTION brain.hold(p_tenant text, p_usd numeric) RETURNS text LANGUAGE plpgsql AS $$
-- 'held'; 'refused' where the hard limit could be crossed; 'free' where there is no budget or nothing to pay.
DECLARE
    b brain.budgets;
BEGIN
    IF p_usd IS NULL THEN
        RETURN 'free';
    END IF;
    b := brain.open_budget(p_tenant);
    IF b.tenant_id IS NULL THEN
        RETURN 'free';
    END IF;
    IF p_usd > 0 AND b.spent_usd + b.reserved_usd + p_usd > b.hard_usd THEN
        IF b.hard_told IS DISTINCT FROM b.hard_usd THEN
            UPDATE brain.budgets x SET hard_told = b.hard_usd WHERE x.tenant_id = p_tenant;
            PERFORM brain.tell_budget(b, 'hard', b.hard_usd);
        END IF;
        RETURN 'refused';
    END IF;
    UPDATE brain.budgets x SET reserved_usd = x.reserved_usd + p_usd WHERE x.tenant_id = p_tenant;
    RETURN 'held';
END $$;

CREATE FUNCTION brain.charge(
    p_tenant text, p_turn text, p_attempt integer, p_conversation text, p_user text, p_caller text, p_calls jsonb,
    p_held numeric, p_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
-- Enter calls into the ledger, once each, and give back what was held for them.
DECLARE
    b brain.budgets;
    v_cost numeric;
BEGIN
    IF p_calls IS NULL AND p_held IS NULL THEN
        RETURN;
    END IF;
    b := brain.open_budget(p_tenant);  -- before the rows below: a new period begins with the sum of the ledger
    WITH entered AS (
        INSERT INTO brain.usage (tenant_id, turn_id, attempt, call, conversation_id, user_id, caller, model, provider,
                why, prompt_tokens, cached_tokens, completion_tokens, cost_usd, estimated, reply, created_at)
            SELECT p_tenant, p_turn, p_attempt, c.call, p_conversation, p_user, p_caller, coalesce(c.model, ''),
                c.provider, coalesce(c.why, 'first'), coalesce(c.prompt_tokens, 0), coalesce(c.cached_tokens, 0),
                coalesce(c.completion_tokens, 0), c.cost_usd, coalesce(c.estimated, false), coalesce(c.reply, true),
                p_at
            FROM jsonb_to_recordset(p_calls) AS c (call integer, model text, provider text, why text,
                prompt_tokens bigint, cached_tokens bigint, completion_tokens bigint, cost_usd numeric,
                estimated boolean, reply boolean)
            ON CONFLICT DO NOTHING
            RETURNING cost_usd
    )
    SELECT coalesce(sum(entered.cost_usd), 0) INTO v_cost FROM entered;
    IF b.tenant_id IS NULL THEN  -- none, or none any more: what was held goes back, and the sum has to be taken anew
        UPDATE brain.budgets x SET reserved_usd = greatest(x.reserved_usd - coalesce(p_held, 0), 0), starts = '-infinity'
            WHERE x.tenant_id = p_tenant AND (p_held > 0 OR x.starts > '-infinity');
        RETURN;
    END IF;
    UPDATE brain.budgets x SET spent_usd = x.spent_usd + v_cost,
            reserved_usd = greatest(x.reserved_usd - coalesce(p_held, 0), 0)
        WHERE x.tenant_id = p_tenant RETURNING * INTO b;
    IF b.spent_usd >= b.soft_usd AND b.soft_told IS DISTINCT FROM b.soft_usd THEN
        UPDATE brain.budgets x SET soft_told = b.soft_usd WHERE x.tenant_id = p_tenant;
        PERFORM brain.tell_budget(b, 'soft', b.soft_usd);
    END IF;
END $$;

-- Completions that nobody keeps.

CREATE FUNCTION brain.reserve(p_tenant text, p_turn text, p_usd numeric, p_for interval)
RETURNS boolean LANGUAGE plpgsql AS $$
-- False: refused. Reserving again under the same name changes nothing.
DECLARE
    held text;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    IF EXISTS (SELECT FROM brain.reservations r WHERE r.tenant_id = p_tenant AND r.turn_id = p_turn) THEN
        RETURN true;
    END IF;
    held := brain.hold(p_tenant, p_usd);
    IF held = 'held' THEN
        INSERT INTO brain.reservations (tenant_id, turn_id, usd, expires_at)
            VALUES (p_tenant, p_turn, p_usd, clock_timestamp() + p_for);
    END IF;
    RETURN held <> 'refused';
END $$;

CREATE FUNCTION brain.settle(
    p_tenant text, p_turn text, p_attempt integer, p_conversation text, p_user text, p_caller text, p_calls jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_held numeric;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM FROM brain.budgets b WHERE b.tenant_id = p_tenant FOR NO KEY UPDATE;
    DELETE FROM brain.reservations r WHERE r.tenant_id = p_tenant AND r.turn_id = p_turn RETURNING r.usd INTO v_held;
    PERFORM brain.charge(p_tenant, p_turn, p_attempt, p_conversation, p_user, p_caller, p_calls, v_held,
        clock_timestamp());
END $$;

CREATE FUNCTION brain.expire_reservations() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Give back what processes held that are gone; the number of tenants it was given back to.
DECLARE
    v_tenant text;
    v_usd numeric;
    found_tenants bigint := 0;
BEGIN
    FOR v_tenant IN SELECT DISTINCT r.tenant_id FROM brain.reservations r WHERE r.expires_at < clock_timestamp()
        ORDER BY 1 LOOP
        PERFORM FROM brain.budgets b WHERE b.tenant_id = v_tenant FOR NO KEY UPDATE;
        WITH gone AS (
            DELETE FROM brain.reservations r WHERE r.tenant_id = v_tenant AND r.expires_at < clock_timestamp()
            RETURNING r.usd
        )
        SELECT coalesce(sum(gone.usd), 0) INTO v_usd FROM gone;
        UPDATE brain.budgets b SET reserved_usd = greatest(b.reserved_usd - v_usd, 0) WHERE b.tenant_id = v_tenant;
        found_tenants := found_tenants + 1;
    END LOOP;
    RETURN found_tenants;
END $$;

CREATE FUNCTION brain.usage_totals(p_from timestamptz, p_to timestamptz, p_tenant text, p_group text[], p_limit integer)
RETURNS TABLE (tenant text, "user" text, model text, provider text, day date, basis text, why text, calls bigint,
    turns bigint, prompt_tokens bigint, cached_tokens bigint, completion_tokens bigint, cost_usd numeric,
    unpriced_calls bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp SET work_mem = '64MB' AS $$
-- The ledger from `p_from` up to before `p_to`, of one tenant or (NULL) of all, summed by what `p_group` names.
    WITH by_turn AS (
        SELECT CASE WHEN 'tenant' = ANY (p_group) THEN u.tenant_id END AS of_tenant,
            CASE WHEN 'user' = ANY (p_group) THEN u.user_id END AS of_user,
            CASE WHEN 'model' = ANY (p_group) THEN u.model END AS of_model,
            CASE WHEN 'provider' = ANY (p_group) THEN u.provider END AS of_provider,
            CASE WHEN 'day' = ANY (p_group) THEN u.day END AS of_day,
            CASE WHEN 'basis' = ANY (p_group) THEN u.basis END AS of_basis,
            CASE WHEN 'why' = ANY (p_group) THEN u.why END AS of_why,
            count(*) AS calls, sum(u.prompt_tokens) AS prompt, sum(u.cached_tokens) AS cached,
            sum(u.completion_tokens) AS completion, sum(u.cost_usd) AS cost,
            count(*) FILTER (WHERE u.cost_usd IS NULL) AS unpriced
        FROM brain.usage u
        WHERE u.created_at >= p_from AND u.created_at < p_to AND (p_tenant IS NULL OR u.tenant_id = p_tenant)
            AND u.day >= (p_from AT TIME ZONE 'UTC')::date AND u.day <= (p_to AT TIME ZONE 'UTC')::date
        GROUP BY u.tenant_id, u.turn_id, 1, 2, 3, 4, 5, 6, 7
    )
    SELECT t.of_tenant, t.of_user, t.of_model, t.of_provider, t.of_day, t.of_basis, t.of_why, sum(t.calls)::bigint,
        count(*), sum(t.prompt)::bigint, sum(t.cached)::bigint, sum(t.completion)::bigint, coalesce(sum(t.cost), 0),
        sum(t.unpriced)::bigint
    FROM by_turn t
    GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 5, 1, 2, 3, 4, 6, 7 LIMIT p_limit
$$;

-- A turn's writes that changed. Their new parameters have defaults, for code of revision 0001.

CREATE OR REPLACE FUNCTION brain.activate(
    p_tenant text, p_conversation text, p_host uuid, p_activation uuid, p_recent integer)
RETURNS jsonb LANGUAGE plpgsql AS $$
-- `recent` holds no message that another one supersedes; `model` gave the last reply. A turn that answers anew brings
-- an earlier turn's message.
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
                AND seq >= greatest(c.window_from, c.next_seq - p_recent) AND superseded_by IS NULL),
        'model', (SELECT m.model FROM brain.messages m WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation
            AND m.role = 'assistant' AND m.superseded_by IS NULL ORDER BY m.seq DESC LIMIT 1),
        'unfinished', (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object(
                'message_id', m.id, 'message_turn', m.turn_id, 'content', m.content, 'metadata', m.metadata,
                'message_at', m.created_at) ORDER BY t.created_at, t.id), '[]')
            FROM brain.turns t JOIN brain.messages m ON m.tenant_id = t.tenant_id
                AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq
            WHERE t.tenant_id = p_tenant AND t.conversation_id = p_conversation
                AND t.status IN ('queued', 'running')));
END $$;

DROP FUNCTION brain.accept_turn;
CREATE FUNCTION brain.accept_turn(
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
    at := clock_timestamp();
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

DROP FUNCTION brain.next_attempt;
CREATE FUNCTION brain.next_attempt(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_attempt integer,
    p_calls jsonb DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
-- `p_calls`: what the attempt before it cost. What is held for the turn stays held.
DECLARE
    t brain.turns;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    UPDATE brain.turns x SET attempt = p_attempt
        WHERE x.tenant_id = p_tenant AND x.id = p_turn AND x.status = 'running' AND x.attempt <= p_attempt
        RETURNING * INTO t;
    IF FOUND AND p_calls IS NOT NULL THEN
        PERFORM brain.charge(p_tenant, p_turn, p_attempt - 1, p_conversation, (SELECT c.user_id FROM brain.conversations c
            WHERE c.tenant_id = p_tenant AND c.id = p_conversation), t.caller, p_calls, NULL, clock_timestamp());
    END IF;
END $$;

DROP FUNCTION brain.finish_turn;
CREATE FUNCTION brain.finish_turn(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_turn text, p_attempt integer,
    p_status text, p_message text, p_content text, p_model text, p_provider text, p_intent jsonb, p_usage jsonb,
    p_cost double precision, p_error jsonb, p_layout jsonb, p_trace jsonb, p_window_from bigint, p_estimated boolean,
    p_citations jsonb, p_calls jsonb DEFAULT NULL, p_versions jsonb DEFAULT NULL,
    OUT status text, OUT seq bigint, OUT at timestamptz, OUT again boolean)
LANGUAGE plpgsql AS $$
-- `again`: the turn had ended before; nothing was written. `seq` is null where no reply is kept. `p_versions` are kept
-- beside the reply, under the numbers after its own. Without `p_calls` the reply's usage is the one call.
DECLARE
    t brain.turns;
    v_user text;
    v_stands text;  -- the reply that stands although this turn was to make it anew
    v_more integer := coalesce(jsonb_array_length(p_versions), 0);
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
        UPDATE brain.conversations c SET next_seq = c.next_seq + 1 + v_more,
                message_count = c.message_count + 1 + v_more,
                window_from = greatest(c.window_from, p_window_from), updated_at = at
            WHERE c.tenant_id = p_tenant AND c.id = p_conversation
            RETURNING c.next_seq - 1 - v_more, c.user_id INTO seq, v_user;
        IF t.regenerates IS NOT NULL AND status = 'completed' THEN
            UPDATE brain.messages m SET superseded_by = p_message
                WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation AND m.seq > t.user_seq
                    AND m.turn_order = t.user_seq AND m.role = 'assistant' AND m.superseded_by IS NULL;
        ELSIF t.regenerates IS NOT NULL THEN
            SELECT m.id INTO v_stands FROM brain.messages m
                WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation AND m.seq > t.user_seq
                    AND m.turn_order = t.user_seq AND m.role = 'assistant' AND m.superseded_by IS NULL
                ORDER BY m.seq DESC LIMIT 1;
        END IF;
        INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status,
                model, usage, cost_usd, citations, superseded_by, created_at)
            VALUES (p_tenant, p_conversation, seq, p_message, p_turn, t.user_seq, 'assistant', p_content, status,
                p_model, p_usage, p_cost, p_citations, v_stands, at);
        IF v_more > 0 THEN
            INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status,
                    model, usage, cost_usd, version, superseded_by, created_at)
                SELECT p_tenant, p_conversation, finish_turn.seq + v.n, v.one->>'message_id', p_turn, t.user_seq,
                    'assistant', v.one->>'content', coalesce(v.one->>'status', 'completed'), v.one->>'model',
                    nullif(v.one->'usage', 'null'), (v.one->>'cost_usd')::double precision, v.n,
                    coalesce(v_stands, p_message), at
                FROM jsonb_array_elements(p_versions) WITH ORDINALITY AS v (one, n);
        END IF;
    ELSIF p_calls IS NOT NULL OR p_usage IS NOT NULL THEN
        SELECT c.user_id INTO v_user FROM brain.conversations c WHERE c.tenant_id = p_tenant AND c.id = p_conversation;
    END IF;
    UPDATE brain.turns x SET status = finish_turn.status, attempt = p_attempt, model = p_model, intent = p_intent,
            usage = p_usage, cost_usd = p_cost, error = p_error, layout = p_layout, trace = p_trace, completed_at = at
        WHERE x.tenant_id = p_tenant AND x.id = p_turn AND x.status IN ('queued', 'running');
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (p_tenant, 'turn.' || status, jsonb_build_object(
        'conversation_id', p_conversation, 'turn_id', p_turn, 'message_id', CASE WHEN seq IS NOT NULL THEN p_message END,
        'seq', seq));
    IF coalesce(jsonb_array_length(p_calls), 0) = 0 THEN
        p_calls := CASE WHEN p_usage IS NOT NULL THEN jsonb_build_array(p_usage || jsonb_build_object('call', 1,
            'model', p_model, 'provider', p_provider, 'cost_usd', p_cost, 'estimated', p_estimated)) END;
    END IF;
    PERFORM brain.charge(p_tenant, p_turn, p_attempt, p_conversation, v_user, t.caller, p_calls, t.reserved_usd, at);
END $$;

CREATE OR REPLACE FUNCTION brain.delete_conversation(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_held numeric;
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    SELECT sum(t.reserved_usd) INTO v_held FROM brain.turns t WHERE t.tenant_id = p_tenant
        AND t.conversation_id = p_conversation AND t.status IN ('queued', 'running');
    DELETE FROM brain.conversations WHERE tenant_id = p_tenant AND id = p_conversation;
    INSERT INTO brain.outbox (tenant_id, topic, payload)
        VALUES (p_tenant, 'conversation.deleted', jsonb_build_object('conversation_id', p_conversation));
    PERFORM brain.charge(p_tenant, '', 0, p_conversation, NULL, NULL, NULL, v_held, clock_timestamp());
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA brain FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA brain TO brain_app;
GRANT CREATE ON SCHEMA brain TO brain_definer;
ALTER FUNCTION brain.expire_reservations() OWNER TO brain_definer;
ALTER FUNCTION brain.usage_totals(timestamptz, timestamptz, text, text[], integer) OWNER TO brain_definer;
REVOKE CREATE ON SCHEMA brain FROM brain_definer;
