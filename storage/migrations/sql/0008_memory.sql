-- Consumers of the outbox with claims, spaces of vectors, and search by words. Code of before runs on it: it knows
-- nothing of these. Two indexes are built afterwards, see storage/migrations/indexes.py.

ALTER TABLE brain.outbox_consumers ADD COLUMN generation bigint NOT NULL DEFAULT 1;  -- raised, it takes every claim away
INSERT INTO brain.outbox_consumers (name) VALUES ('indexer');

CREATE TABLE brain.outbox_claims (  -- who works on a row, or when it may be tried again
    consumer text COLLATE "C" NOT NULL,
    outbox_id bigint NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    holder uuid,
    until timestamptz NOT NULL,
    delivery integer NOT NULL DEFAULT 1,
    failures integer NOT NULL DEFAULT 0,
    error text,
    PRIMARY KEY (consumer, outbox_id)
);

CREATE TABLE brain.outbox_set_aside (  -- rows that a consumer could not work on, however often it tried
    consumer text COLLATE "C" NOT NULL,
    outbox_id bigint NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    topic text NOT NULL,
    payload jsonb NOT NULL,
    failures integer NOT NULL,
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, outbox_id)
);

CREATE TABLE brain.vector_spaces (  -- one embedder's vectors; derived data, which can be made anew
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,31}$'),
    embedder text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions > 0),
    state text NOT NULL CHECK (state IN ('building', 'active', 'retired')),
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    filled_at timestamptz,  -- null: messages of before are still being put in, from here on
    tenant_reached text COLLATE "C" NOT NULL DEFAULT '',
    message_reached text COLLATE "C" NOT NULL DEFAULT '',
    filler uuid,
    filler_until timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX vector_spaces_active ON brain.vector_spaces (state) WHERE state = 'active';
CREATE UNIQUE INDEX vector_spaces_building ON brain.vector_spaces (state) WHERE state = 'building';

CREATE FUNCTION brain.words(p_tenant text, p_content text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- The words of a message, and its tenant as one more that no text can hold. A longer text would exceed a tsvector.
RETURN to_tsvector('pg_catalog.simple'::regconfig, left(p_content, 100000)) || array_to_tsvector(ARRAY[' ' || p_tenant]);

CREATE FUNCTION brain.claim_outbox(
    p_consumer text, p_generation bigint, p_holder uuid, p_lease interval, p_after text, p_share integer,
    p_limit integer)
RETURNS TABLE (tenant_id text, id bigint, delivery integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Up to p_share waiting rows of each tenant, from the one after p_after on and round to it: ids only.
DECLARE
    v_waiting text := format('NOT (o.confirmed @> %L::text[])', ARRAY[p_consumer]);  -- as the consumer's index says it
    v_after text := coalesce(p_after, '');
    v_tenant text := v_after;
    v_wrapped boolean := v_after = '';
    v_next text;
    v_left integer := p_limit;
    v_taken integer;
BEGIN
    IF NOT EXISTS (SELECT FROM outbox_consumers c WHERE c.name = p_consumer AND c.generation = p_generation) THEN
        RETURN;
    END IF;
    WHILE v_left > 0 LOOP
        EXECUTE 'SELECT o.tenant_id FROM outbox o WHERE ' || v_waiting ||
            ' AND o.tenant_id > $1 ORDER BY o.tenant_id LIMIT 1' INTO v_next USING v_tenant;
        IF v_next IS NULL AND NOT v_wrapped THEN
            v_wrapped := true;
            v_tenant := '';
            CONTINUE;
        END IF;
        EXIT WHEN v_next IS NULL OR v_wrapped AND v_after <> '' AND v_next > v_after;
        v_tenant := v_next;
        RETURN QUERY EXECUTE
            'WITH free AS ('
            '    SELECT o.id FROM outbox o WHERE ' || v_waiting || ' AND o.tenant_id = $1 AND NOT EXISTS ('
            '        SELECT FROM outbox_claims c WHERE c.consumer = $2 AND c.outbox_id = o.id AND c.generation = $3'
            '            AND c.until > clock_timestamp())'
            '    ORDER BY o.id LIMIT $4 FOR NO KEY UPDATE OF o SKIP LOCKED)'
            ' INSERT INTO outbox_claims AS c (consumer, outbox_id, tenant_id, generation, holder, until)'
            '    SELECT $2, free.id, $1, $3, $5, clock_timestamp() + $6 FROM free'
            '    ON CONFLICT (consumer, outbox_id) DO UPDATE SET holder = excluded.holder, until = excluded.until,'
            '        generation = excluded.generation, delivery = c.delivery + 1'
            '        WHERE c.until <= clock_timestamp() OR c.generation <> excluded.generation'
            '    RETURNING c.tenant_id, c.outbox_id, c.delivery'
            USING v_tenant, p_consumer, p_generation, least(p_share, v_left), p_holder, p_lease;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
    END LOOP;
END $$;

CREATE FUNCTION brain.confirm_outbox(p_consumer text, p_generation bigint, p_holder uuid, p_ids bigint[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- How many rows are done with: those that p_holder still had, of a generation that still counts.
DECLARE
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
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer) FROM mine
        WHERE o.id = mine.outbox_id AND NOT (o.confirmed @> ARRAY[p_consumer]);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

CREATE FUNCTION brain.fail_outbox(
    p_consumer text, p_holder uuid, p_ids bigint[], p_error text, p_most integer, p_pause interval)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- These are tried again later, each time twice as late; after p_most failures they are set aside: how many were.
DECLARE
    v_aside bigint[];
BEGIN
    PERFORM FROM outbox o WHERE o.id = ANY (p_ids) ORDER BY o.id FOR NO KEY UPDATE;
    UPDATE outbox_claims c SET failures = c.failures + 1, error = left(p_error, 2000), holder = NULL,
            until = clock_timestamp() + p_pause * 2 ^ least(c.failures, 12)
        WHERE c.consumer = p_consumer AND c.outbox_id = ANY (p_ids) AND c.holder = p_holder;
    WITH aside AS (
        DELETE FROM outbox_claims c WHERE c.consumer = p_consumer AND c.outbox_id = ANY (p_ids) AND c.holder IS NULL
            AND c.failures >= p_most RETURNING c.outbox_id, c.failures, c.error),
    kept AS (
        INSERT INTO outbox_set_aside (consumer, outbox_id, tenant_id, topic, payload, failures, error)
            SELECT p_consumer, o.id, o.tenant_id, o.topic, o.payload, aside.failures, coalesce(aside.error, '')
                FROM aside JOIN outbox o ON o.id = aside.outbox_id
            ON CONFLICT (consumer, outbox_id) DO UPDATE SET failures = excluded.failures, error = excluded.error,
                created_at = excluded.created_at)
    SELECT array_agg(aside.outbox_id) INTO v_aside FROM aside;
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (v_aside) AND NOT (o.confirmed @> ARRAY[p_consumer]);
    RETURN coalesce(cardinality(v_aside), 0);
END $$;

CREATE FUNCTION brain.release_outbox(p_consumer text, p_holder uuid, p_ids bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Nothing was wrong with these: whoever comes next may have them.
    UPDATE outbox_claims c SET until = clock_timestamp(), holder = NULL
        WHERE c.consumer = p_consumer AND c.outbox_id = ANY (p_ids) AND c.holder = p_holder
$$;

CREATE FUNCTION brain.outbox_lag(p_consumer text, OUT waiting bigint, OUT seconds double precision, OUT set_aside bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Rows that wait (100,000 stand for any more), the age of the oldest, and how many were set aside.
DECLARE
    v_waiting text := format('NOT (o.confirmed @> %L::text[])', ARRAY[p_consumer]);
BEGIN
    EXECUTE 'SELECT count(*) FROM (SELECT FROM outbox o WHERE ' || v_waiting || ' LIMIT 100000) x' INTO waiting;
    EXECUTE 'WITH RECURSIVE tenants (id) AS ('
        '    (SELECT o.tenant_id FROM outbox o WHERE ' || v_waiting || ' ORDER BY o.tenant_id LIMIT 1)'
        '    UNION ALL SELECT (SELECT o.tenant_id FROM outbox o WHERE ' || v_waiting || ' AND o.tenant_id > tenants.id'
        '        ORDER BY o.tenant_id LIMIT 1) FROM tenants WHERE tenants.id IS NOT NULL)'
        ' SELECT extract(epoch FROM clock_timestamp() - min(first.created_at)) FROM tenants, LATERAL ('
        '    SELECT o.created_at FROM outbox o WHERE ' || v_waiting || ' AND o.tenant_id = tenants.id'
        '    ORDER BY o.id LIMIT 1) first' INTO seconds;
    seconds := greatest(coalesce(seconds, 0), 0);
    SELECT count(*) INTO set_aside FROM outbox_set_aside a WHERE a.consumer = p_consumer;
END $$;

CREATE FUNCTION brain.create_space(p_name text, p_embedder text, p_dimensions integer, p_state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Nothing where there is one of this state. While one is filled nothing is pruned: what happens meanwhile is read again.
BEGIN
    IF p_state NOT IN ('building', 'active') THEN
        RAISE EXCEPTION 'a space begins as building or active' USING ERRCODE = '22023';
    END IF;
    INSERT INTO outbox_consumers (name) VALUES ('reindex') ON CONFLICT DO NOTHING;
    INSERT INTO vector_spaces (name, embedder, dimensions, state) VALUES (p_name, p_embedder, p_dimensions, p_state)
        ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION brain.fill_space(
    p_name text, p_filler uuid, p_lease interval, p_tenant text, p_message text,
    OUT tenant_reached text, OUT message_reached text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Take up or go on with filling a space, one filler at a time; with p_tenant and p_message it has come so far. Null
-- where another one fills it, or nobody needs to.
BEGIN
    UPDATE vector_spaces s SET filler = p_filler, filler_until = clock_timestamp() + p_lease,
            tenant_reached = coalesce(p_tenant, s.tenant_reached),
            message_reached = coalesce(p_message, s.message_reached)
        WHERE s.name = p_name AND s.filled_at IS NULL AND s.state <> 'retired' AND (
            s.filler = p_filler OR p_tenant IS NULL AND coalesce(s.filler_until <= clock_timestamp(), true))
        RETURNING s.tenant_reached, s.message_reached INTO tenant_reached, message_reached;
END $$;

CREATE FUNCTION brain.finish_space(p_name text, p_filler uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The space that p_filler has filled becomes the active one. What happened since it was begun is handed out again, for
-- it may have been missed: an hour is more than any transaction lasts.
DECLARE
    v_begun timestamptz;
BEGIN
    PERFORM FROM outbox_consumers c WHERE c.name = 'indexer' FOR UPDATE;
    SELECT s.begun_at INTO v_begun FROM vector_spaces s
        WHERE s.name = p_name AND s.filler = p_filler AND s.filled_at IS NULL AND s.state <> 'retired' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE outbox_consumers c SET generation = c.generation + 1 WHERE c.name = 'indexer';
    UPDATE vector_spaces s SET state = 'retired', retired_at = clock_timestamp()
        WHERE s.state = 'active' AND s.name <> p_name;
    UPDATE vector_spaces s SET state = 'active', filled_at = clock_timestamp(), filler = NULL, filler_until = NULL
        WHERE s.name = p_name;
    DELETE FROM outbox_claims c WHERE c.consumer = 'indexer';
    DELETE FROM outbox_set_aside a WHERE a.consumer = 'indexer';  -- their messages were tried anew
    UPDATE outbox o SET confirmed = array_remove(o.confirmed, 'indexer')
        WHERE o.created_at > v_begun - interval '1 hour' AND o.confirmed @> '{indexer}';
    DELETE FROM outbox_consumers c WHERE c.name = 'reindex'
        AND NOT EXISTS (SELECT FROM vector_spaces s WHERE s.filled_at IS NULL AND s.state <> 'retired');
    RETURN true;
END $$;

CREATE FUNCTION brain.retire_space(p_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Give up a space that is being built. An active one is only ever replaced.
BEGIN
    UPDATE vector_spaces s SET state = 'retired', retired_at = clock_timestamp()
        WHERE s.name = p_name AND s.state = 'building';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM outbox_consumers c WHERE c.name = 'reindex'
        AND NOT EXISTS (SELECT FROM vector_spaces s WHERE s.filled_at IS NULL AND s.state <> 'retired');
    RETURN true;
END $$;

CREATE FUNCTION brain.forget_space(p_name text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Its vectors are gone.
    DELETE FROM vector_spaces s WHERE s.name = p_name AND s.state = 'retired'
$$;

CREATE FUNCTION brain.messages_after(p_tenant text, p_message text, p_limit integer)
RETURNS TABLE (tenant_id text, id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- All tenants' messages by tenant and id: ids only.
    SELECT m.tenant_id, m.id FROM messages m WHERE (m.tenant_id, m.id) > (p_tenant, p_message)
        ORDER BY m.tenant_id, m.id LIMIT p_limit
$$;

CREATE FUNCTION brain.count_messages_after(p_tenant text, p_message text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT count(*) FROM messages m WHERE (m.tenant_id, m.id) > (p_tenant, p_message)
$$;

CREATE FUNCTION brain.search_words(
    p_query text, p_limit integer, p_user text, p_intent text, p_role text, p_since timestamptz, p_until timestamptz)
RETURNS TABLE (id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The messages of the transaction's tenant that hold these words, the best first, of the newest 500: ids only.
-- Row-level security would keep the index from being used, for a match of words is not leakproof; so this is defined
-- with the rights to read all, and looks at one tenant.
DECLARE
    v_words tsquery := websearch_to_tsquery('pg_catalog.simple', p_query);
    v_tenant text := brain.tenant();
BEGIN
    IF numnode(v_words) = 0 OR coalesce(v_tenant, '') = '' THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT f.id FROM (
            SELECT m.id, m.content FROM messages m
                WHERE m.tenant_id = v_tenant
                    AND brain.words(m.tenant_id, m.content)
                        @@ (v_words && ('''' || replace(' ' || v_tenant, '''', '''''') || '''')::tsquery)
                    AND (p_role IS NULL OR m.role = p_role)
                    AND (p_since IS NULL OR m.created_at >= p_since) AND (p_until IS NULL OR m.created_at < p_until)
                    AND (p_user IS NULL OR EXISTS (SELECT FROM conversations c WHERE c.tenant_id = m.tenant_id
                        AND c.id = m.conversation_id AND c.user_id = p_user))
                    AND (p_intent IS NULL OR EXISTS (SELECT FROM turns t WHERE t.tenant_id = m.tenant_id
                        AND t.id = m.turn_id AND t.intent->>'name' = p_intent))
                ORDER BY m.id DESC LIMIT 500) f
        ORDER BY ts_rank_cd(to_tsvector('pg_catalog.simple', left(f.content, 100000)), v_words, 1) DESC, f.id DESC
        LIMIT p_limit;
END $$;

CREATE FUNCTION brain.tell_deleted_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (OLD.id, 'tenant.deleted', '{}');
    RETURN OLD;
END $$;
CREATE TRIGGER tell_deleted AFTER DELETE ON brain.tenants FOR EACH ROW EXECUTE FUNCTION brain.tell_deleted_tenant();

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['outbox_claims', 'outbox_set_aside', 'vector_spaces'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY work ON brain.' || t || ' TO brain_definer USING (true)';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
CREATE POLICY everyone ON brain.vector_spaces FOR SELECT TO brain_app USING (true);  -- no tenant's, and no secret
CREATE POLICY search ON brain.messages FOR SELECT TO brain_definer USING (true);
GRANT SELECT ON brain.vector_spaces TO brain_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    brain.outbox_claims, brain.outbox_set_aside, brain.vector_spaces, brain.outbox_consumers TO brain_definer;
GRANT UPDATE (confirmed) ON brain.outbox TO brain_definer;
GRANT SELECT ON brain.messages TO brain_definer;

DO $$
DECLARE
    f text;
    given text[] := ARRAY[
        'claim_outbox(text, bigint, uuid, interval, text, integer, integer)',
        'confirm_outbox(text, bigint, uuid, bigint[])',
        'fail_outbox(text, uuid, bigint[], text, integer, interval)',
        'release_outbox(text, uuid, bigint[])',
        'outbox_lag(text)',
        'create_space(text, text, integer, text)',
        'fill_space(text, uuid, interval, text, text)',
        'finish_space(text, uuid)',
        'retire_space(text)',
        'forget_space(text)',
        'messages_after(text, text, integer)',
        'count_messages_after(text, text)',
        'search_words(text, integer, text, text, text, timestamptz, timestamptz)'];
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY given LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION brain.' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION brain.' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION brain.' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
REVOKE ALL ON FUNCTION brain.words(text, text), brain.tell_deleted_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.words(text, text) TO brain_app, brain_definer;
