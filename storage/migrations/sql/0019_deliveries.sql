-- What leaves for others, and comes from them: webhooks, channels with the conversations bound to them, and deliveries.
-- Code of before runs on it: it knows nothing of these. An index is built afterwards, see storage/migrations/indexes.py.

INSERT INTO brain.outbox_consumers (name) VALUES ('deliveries');

CREATE TABLE brain.webhooks (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    description text,
    include_content boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    disabled_reason text,
    disabled_at timestamptz,
    heard_at timestamptz,  -- about when it last answered that it had taken a delivery
    secret jsonb NOT NULL,  -- sealed, as the one before it, which signs too until its time is over
    secret_before jsonb,
    secret_before_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE brain.channels (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('webhook', 'service', 'widget')),
    name text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    secret jsonb NOT NULL,
    secret_before jsonb,
    secret_before_until timestamptz,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    disabled_reason text,
    disabled_at timestamptz,
    heard_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX channels_id ON brain.channels (id);

CREATE TABLE brain.channel_bindings (  -- a thread of a channel, and the conversation that goes on there
    tenant_id text COLLATE "C" NOT NULL,
    channel_id text COLLATE "C" NOT NULL,
    thread text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    channel_user text,
    current boolean NOT NULL DEFAULT true,  -- what is written in the thread is this conversation's; else it was
    created_at timestamptz NOT NULL DEFAULT now(),  -- what happens before it is not told there
    PRIMARY KEY (tenant_id, conversation_id, channel_id),
    FOREIGN KEY (tenant_id, channel_id) REFERENCES brain.channels ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES brain.conversations ON DELETE CASCADE
);
CREATE UNIQUE INDEX channel_bindings_of_thread ON brain.channel_bindings (tenant_id, channel_id, thread) WHERE current;
CREATE INDEX channel_bindings_of_channel ON brain.channel_bindings (tenant_id, channel_id);

CREATE TABLE brain.channel_messages (  -- messages that came in, by the id that their channel gave them: ids only
    tenant_id text COLLATE "C" NOT NULL,
    channel_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,  -- no foreign key: one that comes again stays known
    turn_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, channel_id, external_id),
    FOREIGN KEY (tenant_id, channel_id) REFERENCES brain.channels ON DELETE CASCADE
);
CREATE UNIQUE INDEX channel_messages_of_message ON brain.channel_messages (tenant_id, message_id);
CREATE INDEX channel_messages_of_conversation ON brain.channel_messages (tenant_id, conversation_id);
CREATE INDEX channel_messages_age ON brain.channel_messages (received_at);

CREATE TABLE brain.delivery_lanes (  -- what one subscriber hears of one conversation: in order, so by one at a time
    tenant_id text COLLATE "C" NOT NULL,
    subscriber text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,  -- the conversation; else what else keeps an order
    webhook_id text COLLATE "C",
    channel_id text COLLATE "C",
    due timestamptz,  -- when the first that waits may be tried; null: nothing waits
    holder uuid,
    held_until timestamptz,
    PRIMARY KEY (tenant_id, subscriber, stream),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES brain.webhooks (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, channel_id) REFERENCES brain.channels (tenant_id, id) ON DELETE CASCADE,
    CHECK (num_nonnulls(webhook_id, channel_id) = 1 AND subscriber = coalesce(webhook_id, channel_id))
);
CREATE INDEX delivery_lanes_due ON brain.delivery_lanes (tenant_id, subscriber, due) WHERE due IS NOT NULL;
CREATE INDEX delivery_lanes_held ON brain.delivery_lanes (tenant_id, subscriber) WHERE holder IS NOT NULL;
CREATE INDEX delivery_lanes_of_webhook ON brain.delivery_lanes (tenant_id, webhook_id) WHERE webhook_id IS NOT NULL;
CREATE INDEX delivery_lanes_of_channel ON brain.delivery_lanes (tenant_id, channel_id) WHERE channel_id IS NOT NULL;

CREATE TABLE brain.deliveries (
    tenant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    subscriber text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    place bigint GENERATED BY DEFAULT AS IDENTITY,  -- their order in the lane
    event_id text COLLATE "C" NOT NULL,
    type text NOT NULL,
    event jsonb NOT NULL,  -- ids, no text
    conversation_id text COLLATE "C",
    message_id text COLLATE "C",
    status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'delivered', 'failed', 'skipped')),
    attempts integer NOT NULL DEFAULT 0,
    first_tried_at timestamptz,
    next_at timestamptz,
    http_status integer,
    answer text,
    duration_ms integer,
    error text,
    receipt text CHECK (receipt IN ('sent', 'delivered', 'read', 'failed')),
    receipt_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, subscriber, stream) REFERENCES brain.delivery_lanes ON DELETE CASCADE
);
CREATE INDEX deliveries_waiting ON brain.deliveries (tenant_id, subscriber, stream, place) WHERE status = 'waiting';
CREATE INDEX deliveries_of_subscriber ON brain.deliveries (tenant_id, subscriber, id);
CREATE INDEX deliveries_of_lane ON brain.deliveries (tenant_id, subscriber, stream);
CREATE INDEX deliveries_of_message ON brain.deliveries (tenant_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX deliveries_of_conversation ON brain.deliveries (tenant_id, conversation_id)
    WHERE conversation_id IS NOT NULL;
CREATE INDEX deliveries_age ON brain.deliveries USING brin (created_at);

CREATE FUNCTION brain.find_channel(p_id text) RETURNS TABLE (tenant_id text, channel_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT c.tenant_id, c.id FROM channels c JOIN tenants t ON t.id = c.tenant_id
        WHERE c.id = p_id AND t.status = 'active'
$$;

CREATE FUNCTION brain.active_channels(p_kind text) RETURNS TABLE (tenant_id text, channel_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- For whoever keeps their connections.
    SELECT c.tenant_id, c.id FROM channels c JOIN tenants t ON t.id = c.tenant_id
        WHERE c.kind = p_kind AND c.status = 'active' AND t.status = 'active' ORDER BY 1, 2
$$;

CREATE FUNCTION brain.outbox_tenants(p_consumer text, p_after text, p_limit integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Tenants behind p_after with rows that wait for this consumer.
DECLARE
    v_waiting text := format('NOT (o.confirmed @> %L::text[])', ARRAY[p_consumer]);  -- as the consumer's index says it
    v_tenant text := p_after;
BEGIN
    WHILE p_limit > 0 LOOP
        EXECUTE 'SELECT o.tenant_id FROM outbox o WHERE ' || v_waiting ||
            ' AND o.tenant_id > $1 ORDER BY o.tenant_id LIMIT 1' INTO v_tenant USING v_tenant;
        EXIT WHEN v_tenant IS NULL;
        RETURN NEXT v_tenant;
        p_limit := p_limit - 1;
    END LOOP;
END $$;

CREATE FUNCTION brain.take_outbox(p_consumer text, p_limit integer)
RETURNS TABLE (id bigint, topic text, payload jsonb, created_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The first waiting rows of the transaction's tenant, in order, for a consumer whose work and whose confirmation are one
-- transaction. None while another transaction is at them: so a conversation's rows are never taken out of order.
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('outbox ' || p_consumer || ' ' || brain.tenant(), 0)) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE 'SELECT o.id, o.topic, o.payload, o.created_at FROM outbox o WHERE ' ||
        format('NOT (o.confirmed @> %L::text[])', ARRAY[p_consumer]) ||
        ' AND o.tenant_id = brain.tenant() ORDER BY o.id LIMIT $1 FOR NO KEY UPDATE' USING p_limit;
END $$;

CREATE FUNCTION brain.settle_outbox(p_consumer text, p_ids bigint[], p_aside bigint[], p_error text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- How many rows of the transaction's tenant that `take_outbox` gave are done with; p_aside: those that nobody can work on.
DECLARE
    v_done integer;
BEGIN
    INSERT INTO outbox_set_aside (consumer, outbox_id, tenant_id, topic, payload, failures, error)
        SELECT p_consumer, o.id, o.tenant_id, o.topic, o.payload, 1, left(p_error, 2000) FROM outbox o
            WHERE o.id = ANY (p_aside) AND o.tenant_id = brain.tenant()
        ON CONFLICT (consumer, outbox_id) DO NOTHING;
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (p_ids) AND o.tenant_id = brain.tenant() AND NOT (o.confirmed @> ARRAY[p_consumer]);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

CREATE FUNCTION brain.claim_lanes(
    p_holder uuid, p_lease interval, p_after text, p_share integer, p_each integer, p_limit integer)
RETURNS TABLE (tenant_id text, subscriber text, stream text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Lanes with something due, from the tenant after p_after on and round to it: of a tenant p_share and of a subscriber
-- p_each are in all hands together. Ids only. A lease that ends later than any given now is of a clock that was put back.
DECLARE
    v_now timestamptz := clock_timestamp();
    v_last timestamptz := v_now + p_lease * 2;
    v_after text := coalesce(p_after, '');
    v_tenant text := v_after;
    v_wrapped boolean := v_after = '';
    v_next text;
    v_left integer := p_limit;
    v_held integer;
    v_taken integer;
BEGIN
    WHILE v_left > 0 LOOP
        SELECT l.tenant_id INTO v_next FROM delivery_lanes l
            WHERE l.due <= v_now AND (l.held_until IS NULL OR l.held_until NOT BETWEEN v_now AND v_last)
                AND l.tenant_id > v_tenant
            ORDER BY l.tenant_id LIMIT 1;
        IF v_next IS NULL AND NOT v_wrapped THEN
            v_wrapped := true;
            v_tenant := '';
            CONTINUE;
        END IF;
        EXIT WHEN v_next IS NULL OR v_wrapped AND v_after <> '' AND v_next > v_after;
        v_tenant := v_next;
        SELECT count(*) INTO v_held FROM delivery_lanes l
            WHERE l.tenant_id = v_tenant AND l.holder IS NOT NULL AND l.held_until BETWEEN v_now AND v_last;
        RETURN QUERY WITH one AS (
                SELECT DISTINCT l.subscriber FROM delivery_lanes l WHERE l.tenant_id = v_tenant AND l.due <= v_now),
            free AS (
                SELECT f.subscriber, f.stream FROM one, LATERAL (
                    SELECT l.subscriber, l.stream FROM delivery_lanes l
                        WHERE l.tenant_id = v_tenant AND l.subscriber = one.subscriber AND l.due <= v_now
                            AND (l.held_until IS NULL OR l.held_until NOT BETWEEN v_now AND v_last)
                        ORDER BY l.due LIMIT greatest(p_each - (SELECT count(*) FROM delivery_lanes h
                            WHERE h.tenant_id = v_tenant AND h.subscriber = one.subscriber AND h.holder IS NOT NULL
                                AND h.held_until BETWEEN v_now AND v_last), 0)
                        FOR NO KEY UPDATE SKIP LOCKED) f
                LIMIT greatest(least(p_share - v_held, v_left), 0))
            UPDATE delivery_lanes l SET holder = p_holder, held_until = v_now + p_lease FROM free
                WHERE l.tenant_id = v_tenant AND l.subscriber = free.subscriber AND l.stream = free.stream
                RETURNING l.tenant_id, l.subscriber, l.stream;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
    END LOOP;
END $$;

CREATE FUNCTION brain.prune_deliveries(p_age interval, p_limit integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    -- A bounded part of what is older than p_age and waits no more; the number of removed rows.
    WITH told AS (
        DELETE FROM deliveries d WHERE d.ctid = ANY (ARRAY(
            SELECT x.ctid FROM deliveries x WHERE x.created_at < clock_timestamp() - p_age AND x.status <> 'waiting'
                LIMIT p_limit)) RETURNING 1
    ), heard AS (
        DELETE FROM channel_messages m WHERE m.ctid = ANY (ARRAY(
            SELECT x.ctid FROM channel_messages x WHERE x.received_at < clock_timestamp() - p_age LIMIT p_limit))
            RETURNING 1
    ), empty AS (
        DELETE FROM delivery_lanes l WHERE l.ctid = ANY (ARRAY(
            SELECT x.ctid FROM delivery_lanes x WHERE x.due IS NULL AND NOT EXISTS (SELECT FROM deliveries d
                WHERE d.tenant_id = x.tenant_id AND d.subscriber = x.subscriber AND d.stream = x.stream)
                LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING 1
    )
    SELECT (SELECT count(*) FROM told) + (SELECT count(*) FROM heard) + (SELECT count(*) FROM empty)
$$;

CREATE FUNCTION brain.deliveries_lag(OUT waiting bigint, OUT seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    -- Lanes with something due (100,000 stand for any more), and how long ago the first of them was.
    SELECT count(*), greatest(coalesce(extract(epoch FROM clock_timestamp() - min(x.due)), 0), 0)
        FROM (SELECT l.due FROM delivery_lanes l WHERE l.due <= clock_timestamp() LIMIT 100000) x
$$;

DO $$
DECLARE
    t text;
    f regprocedure;
BEGIN
    FOREACH t IN ARRAY ARRAY['webhooks', 'channels', 'channel_bindings', 'channel_messages', 'delivery_lanes',
            'deliveries'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
    CREATE POLICY find ON brain.channels FOR SELECT TO brain_definer USING (true);
    CREATE POLICY work ON brain.delivery_lanes TO brain_definer USING (true);
    CREATE POLICY prune ON brain.deliveries TO brain_definer USING (true);
    CREATE POLICY prune ON brain.channel_messages TO brain_definer USING (true);
    GRANT SELECT, INSERT, UPDATE, DELETE ON brain.webhooks, brain.channels, brain.channel_bindings,
        brain.channel_messages, brain.deliveries TO brain_app;
    GRANT SELECT, INSERT, UPDATE ON brain.delivery_lanes TO brain_app;
    GRANT SELECT ON brain.channels TO brain_definer;
    GRANT SELECT, UPDATE, DELETE ON brain.delivery_lanes TO brain_definer;
    GRANT SELECT, DELETE ON brain.deliveries, brain.channel_messages TO brain_definer;
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY(SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'brain'::regnamespace
            AND p.proname IN ('find_channel', 'active_channels', 'outbox_tenants', 'take_outbox', 'settle_outbox', 'claim_lanes',
                'prune_deliveries', 'deliveries_lag')) LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
