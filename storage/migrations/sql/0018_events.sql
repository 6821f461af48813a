-- Events that leave the service: the relay as a consumer of the outbox, the topics, and what rows tell besides. Code of
-- before runs on it: it knows nothing of these. The index outbox_of_relay is built afterwards, see
-- storage/migrations/indexes.py.

INSERT INTO brain.outbox_consumers (name) VALUES ('relay');

CREATE TABLE brain.relays (  -- who carries events to Redis, one at a time, and how far Redis is known to be
    name text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    holder uuid,
    until timestamptz NOT NULL DEFAULT '-infinity',
    marker uuid NOT NULL DEFAULT gen_random_uuid(),  -- Redis holds it too, for as long as it has lost nothing
    position bigint NOT NULL DEFAULT 0,  -- batches that Redis has taken since it holds the marker
    again_after bigint,  -- confirmed rows behind this one are published again; null: none are
    again_since timestamptz
);
INSERT INTO brain.relays (name) VALUES ('events');

CREATE TABLE brain.event_topics (  -- streams of the whole platform, each of events of some types
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.-]{0,63}$'),
    patterns text[] NOT NULL CHECK (cardinality(patterns) BETWEEN 1 AND 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brain.event_topics (name, patterns) VALUES ('brain', '{*}');

CREATE TABLE brain.limits_told (  -- when a tenant's refusals were last told of, by kind of limit
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    kind text COLLATE "C" NOT NULL,
    told_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, kind)
);

CREATE FUNCTION brain.relay_lease(
    p_holder uuid, p_lease interval,
    OUT epoch bigint, OUT marker uuid, OUT "position" bigint, OUT again_after bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Take the relay's work, or keep it; nulls where another one has it. An epoch is a time in milliseconds: a restored
-- database repeats none. A lease that ends later than any given now is of a clock that was put back.
BEGIN
    UPDATE relays r SET holder = p_holder, until = clock_timestamp() + p_lease,
            epoch = CASE WHEN r.holder = p_holder THEN r.epoch
                ELSE greatest(r.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) END
        WHERE r.name = 'events' AND (coalesce(r.holder = p_holder, true) OR r.until <= clock_timestamp()
            OR r.until > clock_timestamp() + p_lease * 2)
        RETURNING r.epoch, r.marker, r.position, r.again_after INTO epoch, marker, "position", again_after;
END $$;

CREATE FUNCTION brain.relay_release(p_holder uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    UPDATE relays r SET holder = NULL, until = '-infinity' WHERE r.name = 'events' AND r.holder = p_holder
$$;

CREATE FUNCTION brain.relay_take(p_epoch bigint, p_done bigint[], p_position bigint, p_without bigint[], p_limit integer)
RETURNS TABLE (id bigint, tenant_id text, topic text, payload jsonb, created_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Confirm p_done, which Redis has as its batch p_position, and give what waits, without p_without. Whoever sees a row of a
-- conversation sees its rows of before: their ids are given out under the conversation's lock. Payloads hold ids alone.
BEGIN
    IF cardinality(p_done) > 0 THEN
        UPDATE relays r SET position = greatest(r.position, p_position) WHERE r.name = 'events' AND r.epoch = p_epoch;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another relay works' USING ERRCODE = 'BRFEN';
        END IF;
        PERFORM FROM outbox o WHERE o.id = ANY (p_done) ORDER BY o.id FOR NO KEY UPDATE;
        UPDATE outbox o SET confirmed = array_append(o.confirmed, 'relay')
            WHERE o.id = ANY (p_done) AND NOT (o.confirmed @> '{relay}');
    END IF;
    RETURN QUERY SELECT o.id, o.tenant_id, o.topic, o.payload, o.created_at FROM outbox o
        WHERE NOT (o.confirmed @> '{relay}') AND o.id <> ALL (p_without) ORDER BY o.id LIMIT p_limit;
END $$;

CREATE FUNCTION brain.relay_lost(p_epoch bigint, p_since interval) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Redis has lost what it had: a new marker, and confirmed rows no older than p_since are to be published again.
DECLARE
    v_marker uuid;
BEGIN
    UPDATE relays r SET marker = gen_random_uuid(), position = 0, again_after = 0,
            again_since = clock_timestamp() - p_since
        WHERE r.name = 'events' AND r.epoch = p_epoch RETURNING r.marker INTO v_marker;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another relay works' USING ERRCODE = 'BRFEN';
    END IF;
    RETURN v_marker;
END $$;

CREATE FUNCTION brain.relay_again(p_epoch bigint, p_after bigint, p_position bigint, p_limit integer)
RETURNS TABLE (id bigint, tenant_id text, topic text, payload jsonb, created_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Rows to be published again, up to p_after they have been; with p_limit 0 all have.
DECLARE
    v_since timestamptz;
BEGIN
    UPDATE relays r SET again_after = CASE WHEN p_limit > 0 THEN p_after END,
            position = greatest(r.position, p_position)
        WHERE r.name = 'events' AND r.epoch = p_epoch RETURNING r.again_since INTO v_since;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another relay works' USING ERRCODE = 'BRFEN';
    END IF;
    RETURN QUERY SELECT o.id, o.tenant_id, o.topic, o.payload, o.created_at FROM outbox o
        WHERE o.confirmed @> '{relay}' AND o.id > p_after AND o.created_at >= v_since ORDER BY o.id LIMIT p_limit;
END $$;

CREATE FUNCTION brain.relay_lag(OUT waiting bigint, OUT seconds double precision, OUT oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Rows that are not published (100,000 stand for any more), the age of the oldest, and the oldest row that is kept.
    SELECT (SELECT count(*) FROM (SELECT FROM outbox o WHERE NOT (o.confirmed @> '{relay}') LIMIT 100000) x),
        greatest(coalesce((SELECT extract(epoch FROM clock_timestamp() - o.created_at) FROM outbox o
            WHERE NOT (o.confirmed @> '{relay}') ORDER BY o.id LIMIT 1), 0), 0),
        (SELECT o.created_at FROM outbox o ORDER BY o.id LIMIT 1)
$$;

CREATE FUNCTION brain.events_kept(p_since timestamptz, p_after bigint, p_limit integer)
RETURNS TABLE (id bigint, topic text, payload jsonb, created_at timestamptz)
LANGUAGE sql STABLE AS $$
-- The transaction's tenant's rows from a time on, behind p_after.
    SELECT o.id, o.topic, o.payload, o.created_at FROM brain.outbox o
        WHERE o.tenant_id = brain.tenant() AND o.id > p_after AND o.created_at >= p_since ORDER BY o.id LIMIT p_limit
$$;

CREATE FUNCTION brain.tell_turn() RETURNS trigger LANGUAGE plpgsql AS $$
-- The end of a turn tells names and ids of what the turn's row holds: an event has them also when the row is gone.
DECLARE
    v_more jsonb;
BEGIN
    SELECT jsonb_strip_nulls(jsonb_build_object('status', t.status, 'attempt', t.attempt, 'model', t.model,
            'intent', t.intent->>'name', 'error', coalesce(t.error->>'code', t.error->>'type'),
            'user_message_id', m.id, 'regenerates', t.regenerates))
        INTO v_more FROM brain.turns t LEFT JOIN brain.messages m ON m.tenant_id = t.tenant_id
            AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq
        WHERE t.tenant_id = NEW.tenant_id AND t.id = NEW.payload->>'turn_id';
    NEW.payload := NEW.payload || coalesce(v_more, '{}');
    RETURN NEW;
END $$;
CREATE TRIGGER tell_turn BEFORE INSERT ON brain.outbox FOR EACH ROW
    WHEN (NEW.topic IN ('turn.completed', 'turn.failed', 'turn.cancelled')) EXECUTE FUNCTION brain.tell_turn();

CREATE FUNCTION brain.tell_limit(p_kind text, p_limit bigint) RETURNS void LANGUAGE sql AS $$
-- That requests of the transaction's tenant are refused, once a minute by kind of limit.
    WITH told AS (
        INSERT INTO brain.limits_told AS l (tenant_id, kind, told_at)
            VALUES (brain.tenant(), p_kind, clock_timestamp())
            ON CONFLICT (tenant_id, kind) DO UPDATE SET told_at = excluded.told_at
                WHERE l.told_at <= excluded.told_at - interval '1 minute' RETURNING l.tenant_id)
    INSERT INTO brain.outbox (tenant_id, topic, payload)
        SELECT told.tenant_id, 'limit.exceeded', jsonb_build_object('limit', p_kind, 'value', p_limit) FROM told
$$;

CREATE FUNCTION brain.tell_embedded(p_events bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- That vectors of the messages are there of which these rows tell: a row a conversation, which no indexer has to see.
    INSERT INTO outbox (tenant_id, topic, payload, confirmed)
        SELECT m.tenant_id, 'message.embedding_created', jsonb_build_object('conversation_id', m.conversation_id,
                'message_ids', jsonb_agg(m.id ORDER BY m.seq)), '{indexer,reindex}'
            FROM told_messages(p_events) t JOIN messages m ON m.tenant_id = t.tenant_id AND m.id = t.id
            GROUP BY m.tenant_id, m.conversation_id
$$;

CREATE OR REPLACE FUNCTION brain.confirm_outbox(p_consumer text, p_generation bigint, p_holder uuid, p_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- How many rows are done with: those that p_holder still had, of a generation that still counts.
DECLARE
    v_mine bigint[];
    v_done integer;
BEGIN
    PERFORM FROM outbox_consumers c WHERE c.name = p_consumer AND c.generation = p_generation FOR SHARE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM FROM outbox o WHERE o.id = ANY (p_ids) ORDER BY o.id FOR NO KEY UPDATE;  -- as a claim: rows come first
    WITH mine AS (
        DELETE FROM outbox_claims c WHERE c.consumer = p_consumer AND c.outbox_id = ANY (p_ids)
            AND c.holder = p_holder AND c.generation = p_generation RETURNING c.outbox_id)
    SELECT array_agg(mine.outbox_id) INTO v_mine FROM mine;
    IF p_consumer = 'indexer' THEN
        PERFORM brain.keep_words(v_mine);
        PERFORM brain.tell_embedded(v_mine);
    END IF;
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (v_mine) AND NOT (o.confirmed @> ARRAY[p_consumer]);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

CREATE OR REPLACE FUNCTION brain.erase_events(p_conversations text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Events that tell of these conversations of the transaction's tenant, of all of its conversations where null, as far as
-- each consumer has confirmed them: what one has still in its hands stays, for it may have to be told again. Not for the
-- relay: what is erased is not told to others any more, but that it is gone.
DECLARE
    v_tenant text := brain.tenant();
    v_gone bigint;
    v_aside bigint;
BEGIN
    DELETE FROM outbox o WHERE o.tenant_id = v_tenant
        AND o.topic NOT IN ('conversation.deleted', 'tenant.deleted')
        AND (p_conversations IS NULL OR o.payload->>'conversation_id' = ANY (p_conversations))
        AND NOT EXISTS (SELECT FROM outbox_consumers c WHERE c.name <> 'relay' AND NOT c.name = ANY (o.confirmed));
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    DELETE FROM outbox_set_aside a WHERE a.tenant_id = v_tenant
        AND a.topic NOT IN ('conversation.deleted', 'tenant.deleted')
        AND (p_conversations IS NULL OR a.payload->>'conversation_id' = ANY (p_conversations));
    GET DIAGNOSTICS v_aside = ROW_COUNT;
    RETURN v_gone + v_aside;
END $$;

ALTER TABLE brain.relays ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.relays FORCE ROW LEVEL SECURITY;
CREATE POLICY work ON brain.relays TO brain_definer USING (true);
CREATE POLICY administration ON brain.relays TO CURRENT_USER USING (true);
ALTER TABLE brain.event_topics ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.event_topics FORCE ROW LEVEL SECURITY;
CREATE POLICY everyone ON brain.event_topics TO brain_app USING (true);  -- no tenant's
CREATE POLICY administration ON brain.event_topics TO CURRENT_USER USING (true);
ALTER TABLE brain.limits_told ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.limits_told FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON brain.limits_told TO brain_app USING (tenant_id = brain.tenant());
CREATE POLICY administration ON brain.limits_told TO CURRENT_USER USING (true);
GRANT SELECT, UPDATE ON brain.relays TO brain_definer;
GRANT SELECT, INSERT, DELETE ON brain.event_topics TO brain_app;
GRANT SELECT, INSERT, UPDATE ON brain.limits_told TO brain_app;

DO $$
DECLARE f regprocedure;
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY['brain.relay_lease(uuid, interval)'::regprocedure, 'brain.relay_release(uuid)'::regprocedure,
        'brain.relay_take(bigint, bigint[], bigint, bigint[], integer)'::regprocedure,
        'brain.relay_lost(bigint, interval)'::regprocedure,
        'brain.relay_again(bigint, bigint, bigint, integer)'::regprocedure, 'brain.relay_lag()'::regprocedure] LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE ALL ON FUNCTION brain.tell_embedded(bigint[]) FROM PUBLIC;
    ALTER FUNCTION brain.tell_embedded(bigint[]) OWNER TO brain_definer;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
REVOKE ALL ON FUNCTION brain.tell_turn(), brain.tell_limit(text, bigint), brain.events_kept(timestamptz, bigint, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.tell_limit(text, bigint), brain.events_kept(timestamptz, bigint, integer) TO brain_app;
