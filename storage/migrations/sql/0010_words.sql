-- The words of messages in a table of their own, which is filled when a consumer of the outbox confirms: turns write none.
-- Code of before runs on it, for it confirms and searches by the functions that are replaced here. What was confirmed
-- earlier is filled in afterwards, see storage/migrations/indexes.py; until then words are looked up as before.

CREATE TABLE brain.message_words (
    tenant_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (tenant_id, message_id),
    FOREIGN KEY (tenant_id, message_id) REFERENCES brain.messages (tenant_id, id) ON DELETE CASCADE
);

CREATE FUNCTION brain.told_messages(p_events bigint[]) RETURNS TABLE (tenant_id text, id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The messages that these rows of the outbox tell of; some may be gone.
    SELECT o.tenant_id, o.payload->>'message_id' FROM outbox o
        WHERE o.id = ANY (p_events) AND o.payload->>'message_id' IS NOT NULL
    UNION SELECT o.tenant_id, m.id FROM outbox o JOIN messages m ON m.tenant_id = o.tenant_id
            AND m.turn_id = o.payload->>'turn_id' AND m.role = 'assistant'
        WHERE o.id = ANY (p_events) AND o.topic LIKE 'turn.%'
$$;

CREATE FUNCTION brain.keep_words(p_events bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- A message's text never changes. In order, so that two of these do not wait for each other.
BEGIN
    FOR attempt IN 1..5 LOOP
        BEGIN
            INSERT INTO message_words (tenant_id, message_id, words)
                SELECT m.tenant_id, m.id, brain.words(m.tenant_id, m.content)
                    FROM told_messages(p_events) t JOIN messages m ON m.tenant_id = t.tenant_id AND m.id = t.id
                    ORDER BY m.tenant_id, m.id
                ON CONFLICT DO NOTHING;
            RETURN;
        EXCEPTION WHEN foreign_key_violation THEN  -- one was deleted in this moment
            CONTINUE;
        END;
    END LOOP;
    RAISE EXCEPTION 'messages are deleted faster than their words are kept' USING ERRCODE = '40001';
END $$;

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
    END IF;
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (v_mine) AND NOT (o.confirmed @> ARRAY[p_consumer]);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

CREATE OR REPLACE FUNCTION brain.fail_outbox(
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
    IF p_consumer = 'indexer' THEN  -- its meaning cannot be had, its words can
        PERFORM brain.keep_words(v_aside);
    END IF;
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (v_aside) AND NOT (o.confirmed @> ARRAY[p_consumer]);
    RETURN coalesce(cardinality(v_aside), 0);
END $$;

CREATE FUNCTION brain.waiting_words(p_tenant text, p_words tsquery) RETURNS TABLE (id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Messages with these words of which the newest 1,000 events tell that the indexer has not confirmed.
    SELECT m.id FROM told_messages(ARRAY(
            SELECT o.id FROM outbox o WHERE NOT (o.confirmed @> '{indexer}') AND o.tenant_id = p_tenant
                ORDER BY o.id DESC LIMIT 1000)) t
        JOIN messages m ON m.tenant_id = p_tenant AND m.id = t.id
        WHERE brain.words(m.tenant_id, m.content) @@ p_words
$$;

CREATE OR REPLACE FUNCTION brain.search_words(
    p_query text, p_limit integer, p_user text, p_intent text, p_role text, p_since timestamptz, p_until timestamptz)
RETURNS TABLE (id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp
SET plan_cache_mode = force_custom_plan AS $$  -- few hits are looked up one by one, many are not
-- The messages of the transaction's tenant that hold these words, the best first, of the newest 500: ids only.
-- Row-level security would keep the index from being used, for a match of words is not leakproof; so this is defined
-- with the rights to read all, and looks at one tenant.
DECLARE
    v_words tsquery := websearch_to_tsquery('pg_catalog.simple', p_query);
    v_tenant text := brain.tenant();
    v_here tsquery;
    v_complete boolean := EXISTS (
        SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = to_regclass('brain.message_words_found') AND i.indisvalid);
    v_hits text[];
    v_most integer := CASE WHEN num_nonnulls(p_user, p_intent, p_role, p_since, p_until) = 0 THEN 500 END;
BEGIN
    IF numnode(v_words) = 0 OR coalesce(v_tenant, '') = '' THEN
        RETURN;
    END IF;
    v_here := v_words && ('''' || replace(' ' || v_tenant, '''', '''''') || '''')::tsquery;
    v_hits := ARRAY(
        (SELECT w.message_id FROM message_words w
            WHERE v_complete AND w.words @@ v_here ORDER BY w.message_id DESC LIMIT v_most)
        UNION SELECT w.id FROM waiting_words(v_tenant, v_here) w WHERE v_complete
        UNION SELECT m.id FROM messages m
            WHERE NOT v_complete AND m.tenant_id = v_tenant AND brain.words(m.tenant_id, m.content) @@ v_here);
    RETURN QUERY
        SELECT f.id FROM (
            SELECT m.id, m.content FROM messages m
                WHERE m.tenant_id = v_tenant AND m.id = ANY (v_hits) AND (p_role IS NULL OR m.role = p_role)
                    AND (p_since IS NULL OR m.created_at >= p_since) AND (p_until IS NULL OR m.created_at < p_until)
                    AND (p_user IS NULL OR EXISTS (SELECT FROM conversations c WHERE c.tenant_id = m.tenant_id
                        AND c.id = m.conversation_id AND c.user_id = p_user))
                    AND (p_intent IS NULL OR EXISTS (SELECT FROM turns t WHERE t.tenant_id = m.tenant_id
                        AND t.id = m.turn_id AND t.intent->>'name' = p_intent))
                ORDER BY m.id DESC LIMIT 500) f
        ORDER BY ts_rank_cd(to_tsvector('pg_catalog.simple', left(f.content, 100000)), v_words, 1) DESC, f.id DESC
        LIMIT p_limit;
END $$;

ALTER TABLE brain.message_words ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.message_words FORCE ROW LEVEL SECURITY;
CREATE POLICY work ON brain.message_words TO brain_definer USING (true);
CREATE POLICY administration ON brain.message_words TO CURRENT_USER USING (true);
GRANT SELECT, INSERT ON brain.message_words TO brain_definer;

DO $$
DECLARE
    f text;
    own text[] := ARRAY['told_messages(bigint[])', 'keep_words(bigint[])', 'waiting_words(text, tsquery)'];
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY own LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION brain.' || f || ' FROM PUBLIC';
        EXECUTE 'ALTER FUNCTION brain.' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;

-- Whoever confirms at this moment does so by the function of before: it waits for this row, and finds its claims gone.
UPDATE brain.outbox_consumers SET generation = generation + 1 WHERE name = 'indexer';

CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)
LANGUAGE sql IMMUTABLE AS $$ SELECT '0010', '0004' $$;
