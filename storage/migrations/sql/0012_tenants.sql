-- Tenants that are deleted whole, keys that others replace, conversations past their time, figures of the service.
-- Code of before runs on it.

ALTER TABLE brain.api_keys ADD COLUMN replaced_by text COLLATE "C";  -- the key that rotation put in its place

CREATE FUNCTION brain.replace_key(p_tenant text, p_old text, p_new text, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- As end_key, of a key whose place another one takes.
BEGIN
    UPDATE brain.api_keys k SET replaced_by = p_new
        WHERE k.tenant_id = p_tenant AND p_tenant = brain.tenant() AND k.id = p_old AND k.role <> 'operator';
    RETURN FOUND AND brain.end_key(p_tenant, p_old, p_at);
END $$;

CREATE FUNCTION brain.clear_tenant(p_tenant text, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- A bounded part of what no foreign key ties to the tenant; the number of removed rows. The operator's tenant keeps all.
DECLARE
    gone bigint;
    part bigint;
BEGIN
    IF p_tenant IS DISTINCT FROM brain.tenant()
            OR EXISTS (SELECT FROM brain.tenants t WHERE t.id = p_tenant AND t.settings ? 'operator') THEN
        RAISE EXCEPTION 'this tenant keeps what it has' USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM brain.usage WHERE ctid = ANY (ARRAY(SELECT u.ctid FROM brain.usage u
        WHERE u.tenant_id = p_tenant LIMIT p_limit));
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM brain.idempotency WHERE ctid = ANY (ARRAY(SELECT i.ctid FROM brain.idempotency i
        WHERE i.tenant_id = p_tenant LIMIT p_limit));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM brain.reservations WHERE ctid = ANY (ARRAY(SELECT r.ctid FROM brain.reservations r
        WHERE r.tenant_id = p_tenant LIMIT p_limit));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    -- What consumers have not read yet tells of what is gone; that the tenant is gone is told after it.
    DELETE FROM brain.outbox WHERE id = ANY (ARRAY(SELECT o.id FROM brain.outbox o
        WHERE o.tenant_id = p_tenant AND o.topic <> 'tenant.deleted' LIMIT p_limit));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM brain.outbox_claims c WHERE c.tenant_id = p_tenant
        AND NOT EXISTS (SELECT FROM brain.outbox o WHERE o.id = c.outbox_id);
    DELETE FROM brain.outbox_set_aside s WHERE s.tenant_id = p_tenant;
    RETURN gone;
END $$;

CREATE FUNCTION brain.expired_conversations(p_limit integer) RETURNS TABLE (tenant_id text, conversation_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Conversations in which nothing has happened for longer than their tenant keeps them. Ids begin with the time of
-- creation (milliseconds, 12 hexadecimal digits), so what is too young to matter is never looked at.
DECLARE
    t record;
    horizon timestamptz;
    found_here integer;
BEGIN
    FOR t IN SELECT k.id, (k.settings->>'retention_days')::integer AS days FROM brain.tenants k
        WHERE jsonb_typeof(k.settings->'retention_days') = 'number' LOOP
        horizon := clock_timestamp() - make_interval(days => t.days);
        RETURN QUERY SELECT c.tenant_id, c.id FROM brain.conversations c
            WHERE c.tenant_id = t.id AND c.updated_at < horizon
                AND c.id < 'conv_' || lpad(to_hex((extract(epoch FROM horizon) * 1000)::bigint), 12, '0')
            ORDER BY c.id LIMIT p_limit;
        GET DIAGNOSTICS found_here = ROW_COUNT;
        p_limit := p_limit - found_here;
        EXIT WHEN p_limit <= 0;
    END LOOP;
END $$;

CREATE FUNCTION brain.counted(p_table regclass, p_most bigint, OUT rows bigint, OUT exact boolean)
LANGUAGE plpgsql STABLE SET search_path = brain, pg_temp AS $$
-- Counted where the table is small; else as many as its statistics say.
BEGIN
    SELECT greatest(c.reltuples, 0)::bigint INTO rows FROM pg_class c WHERE c.oid = p_table;
    exact := rows < p_most;
    IF exact THEN
        EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %s LIMIT $1) s', p_table) INTO rows USING p_most;
        exact := rows < p_most;
    END IF;
END $$;

CREATE FUNCTION brain.platform_figures(p_most bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Numbers of the whole service, and no row of anybody. No table of more than `p_most` rows is read whole.
DECLARE
    figures jsonb := '{}';
    by_status jsonb;
    t text;
    n record;
    share double precision;
BEGIN
    FOREACH t IN ARRAY ARRAY['api_keys', 'users', 'conversations', 'messages', 'turns'] LOOP
        SELECT * INTO n FROM brain.counted(('brain.' || t)::regclass, p_most);
        figures := figures || jsonb_build_object(t, jsonb_build_object('count', n.rows, 'exact', n.exact));
    END LOOP;
    SELECT coalesce(jsonb_object_agg(s.status, s.rows), '{}') INTO by_status
        FROM (SELECT k.status, count(*) AS rows FROM brain.tenants k GROUP BY 1) s;
    figures := figures || jsonb_build_object('tenants', by_status);
    share := CASE WHEN n.exact THEN 100 ELSE least(100.0 * p_most / greatest(n.rows, 1), 100) END;
    -- Of a large table a sample of its pages; what is unfinished has an index of its own.
    SELECT coalesce(jsonb_object_agg(s.status, s.rows), '{}') INTO by_status FROM (
        SELECT k.status, (count(*) * 100 / share)::bigint AS rows FROM brain.turns k TABLESAMPLE SYSTEM (share)
            WHERE k.status NOT IN ('queued', 'running') GROUP BY 1
        UNION ALL
        SELECT k.status, count(*) FROM brain.turns k WHERE k.status IN ('queued', 'running') GROUP BY 1) s;
    figures := jsonb_set(figures, '{turns,by_status}', by_status);
    RETURN figures || jsonb_build_object(
        'outbox', (SELECT count(*) FROM (SELECT 1 FROM brain.outbox LIMIT p_most) s),
        'outbox_set_aside', (SELECT count(*) FROM (SELECT 1 FROM brain.outbox_set_aside LIMIT p_most) s),
        'hosts', (SELECT count(*) FROM brain.hosts h WHERE h.renewed_at > clock_timestamp() - interval '10 seconds'),
        'access_version', (SELECT v.version FROM brain.access_version v),
        'schema', (SELECT c.revision FROM brain.schema_compatibility() c));
END $$;

CREATE POLICY erase ON brain.usage FOR DELETE TO brain_definer USING (true);
GRANT DELETE ON brain.usage TO brain_definer;
GRANT INSERT ON brain.outbox TO brain_definer;  -- that a tenant is gone, by the trigger of its deletion

DO $$
DECLARE f regprocedure;
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY(SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'brain'::regnamespace
        AND p.proname IN ('replace_key', 'clear_tenant', 'expired_conversations', 'platform_figures')) LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
    REVOKE ALL ON FUNCTION brain.counted(regclass, bigint) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION brain.counted(regclass, bigint) TO brain_definer;
END $$;
