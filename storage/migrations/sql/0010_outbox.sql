CREATE FUNCTION brain.outbox_size(OUT bytes bigint, OUT seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- What the outbox takes, with its indexes, and the age of its oldest row: those are kept for a day, if nobody waits.
    SELECT pg_total_relation_size('brain.outbox'), greatest(coalesce(
        (SELECT extract(epoch FROM clock_timestamp() - o.created_at) FROM outbox o ORDER BY o.id LIMIT 1), 0), 0)
$$;

CREATE FUNCTION brain.skip_outbox(p_consumer text, p_before timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The operator's: up to p_limit rows from before p_before count as done by a consumer that never saw them, so that they
-- can be pruned; how many, 0 when nothing is left to do. The words of their messages are kept.
DECLARE
    v_waiting text := format('NOT (o.confirmed @> %L::text[])', ARRAY[p_consumer]);
    v_ids bigint[];
    v_done integer;
BEGIN
    IF NOT EXISTS (SELECT FROM outbox_consumers c WHERE c.name = p_consumer) THEN
        RAISE EXCEPTION 'the outbox has no consumer of this name' USING ERRCODE = 'BR404';
    END IF;
    EXECUTE 'SELECT array_agg(x.id) FROM (SELECT o.id FROM outbox o WHERE ' || v_waiting ||
        ' AND o.created_at < $1 ORDER BY o.tenant_id, o.id LIMIT $2) x' INTO v_ids USING p_before, p_limit;
    PERFORM FROM outbox o WHERE o.id = ANY (v_ids) ORDER BY o.id FOR NO KEY UPDATE;  -- as a claim: rows come first
    IF p_consumer = 'indexer' THEN
        PERFORM brain.keep_words(v_ids);
    END IF;
    DELETE FROM outbox_claims c WHERE c.consumer = p_consumer AND c.outbox_id = ANY (v_ids);
    UPDATE outbox o SET confirmed = array_append(o.confirmed, p_consumer)
        WHERE o.id = ANY (v_ids) AND NOT (o.confirmed @> ARRAY[p_consumer]);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

DO $$
DECLARE f text;
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY['outbox_size()', 'skip_outbox(text, timestamptz, integer)'] LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION brain.' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION brain.' || f || ' TO ' || CASE f WHEN 'outbox_size()' THEN 'brain_app'
            ELSE quote_ident(CURRENT_USER) END;
        EXECUTE 'ALTER FUNCTION brain.' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
