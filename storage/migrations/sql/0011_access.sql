-- Who may do what: tenants that change, keys with scopes, roles, users, sessions, signing keys, and what of it changed.
-- Code of before runs on it: it finds its keys as it did.

ALTER TABLE brain.tenants ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();

ALTER TABLE brain.api_keys
    ADD COLUMN prefix text NOT NULL DEFAULT '',
    ADD COLUMN scopes text[],  -- null: all that the role has
    ADD COLUMN user_id text COLLATE "C",  -- whose key it is; null: the tenant's
    ADD COLUMN created_by text NOT NULL DEFAULT '',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz;

CREATE TABLE brain.roles (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    description text NOT NULL DEFAULT '',
    permissions text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE brain.users (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    email text NOT NULL,
    email_key text COLLATE "C" NOT NULL,  -- as it is compared: case-folded
    name text,
    password_hash text,  -- argon2id; null: signs in elsewhere
    role text NOT NULL DEFAULT 'member' CHECK (role <> 'operator'),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    issuer text,  -- of an outside OpenID provider, and its name for this user
    subject text,
    preferences jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    tokens_from timestamptz NOT NULL DEFAULT '-infinity',  -- access tokens made before are refused
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_active_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX users_email ON brain.users (tenant_id, email_key);
CREATE UNIQUE INDEX users_subject ON brain.users (tenant_id, issuer, subject) WHERE issuer IS NOT NULL;

CREATE TABLE brain.sessions (  -- a sign-in: the family of its refresh tokens
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    client_id text COLLATE "C",
    scopes text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES brain.users ON DELETE CASCADE
);
CREATE INDEX sessions_of_user ON brain.sessions (tenant_id, user_id);

CREATE TABLE brain.refresh_tokens (
    tenant_id text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    PRIMARY KEY (tenant_id, hash),
    FOREIGN KEY (tenant_id, session_id) REFERENCES brain.sessions ON DELETE CASCADE
);

CREATE TABLE brain.revoked_tokens (  -- access tokens that end before their time
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    jti text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, jti)
);
CREATE INDEX revoked_tokens_age ON brain.revoked_tokens (expires_at);

CREATE TABLE brain.audit (
    tenant_id text COLLATE "C" NOT NULL,  -- no foreign key: it outlives what it tells of
    id text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor jsonb NOT NULL,
    action text NOT NULL,
    subject text,
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE brain.signing_keys (  -- of access tokens and receipts; the private part is sealed
    id text COLLATE "C" PRIMARY KEY,
    algorithm text NOT NULL,
    public jsonb NOT NULL,
    sealed jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    signs_from timestamptz NOT NULL,
    signs_until timestamptz,
    verifies_until timestamptz
);

-- What changed of access, in one row that costs one small query to look at: replicas forget what they believed.
CREATE TABLE brain.access_version (version bigint NOT NULL);
INSERT INTO brain.access_version VALUES (extract(epoch FROM now())::bigint * 1000);  -- no restored backup repeats one
CREATE TABLE brain.access_changes (
    version bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('tenant', 'key', 'user', 'role', 'token', 'signing')),
    subject text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION brain.access_changed(p_tenant text, p_kind text, p_subject text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Part of the transaction that changes something, so that it is told exactly when it counts.
    WITH next AS (UPDATE brain.access_version SET version = greatest(version + 1, extract(epoch FROM now())::bigint * 1000)
        RETURNING version)
    INSERT INTO brain.access_changes (version, tenant_id, kind, subject) SELECT version, p_tenant, p_kind, p_subject FROM next
$$;

CREATE FUNCTION brain.access_since(p_version bigint, p_limit integer)
RETURNS TABLE (version bigint, tenant_id text, kind text, subject text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT c.version, c.tenant_id, c.kind, c.subject FROM brain.access_changes c
        WHERE c.version > p_version ORDER BY c.version LIMIT p_limit
$$;

CREATE FUNCTION brain.revoked_now() RETURNS TABLE (jti text, expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT r.jti, r.expires_at FROM brain.revoked_tokens r WHERE r.expires_at > clock_timestamp()
$$;

CREATE FUNCTION brain.prune_access() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- A bounded part of what no replica can miss any more; the number of removed rows.
    WITH changes AS (
        DELETE FROM brain.access_changes WHERE version = ANY (ARRAY(SELECT c.version FROM brain.access_changes c
            WHERE c.at < now() - interval '1 hour' ORDER BY c.version LIMIT 5000)) RETURNING 1
    ), tokens AS (
        DELETE FROM brain.revoked_tokens WHERE ctid = ANY (ARRAY(SELECT r.ctid FROM brain.revoked_tokens r
            WHERE r.expires_at < now() - interval '1 hour' LIMIT 5000)) RETURNING 1
    ), families AS (
        DELETE FROM brain.sessions WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM brain.sessions s
            WHERE s.expires_at < now() - interval '1 day' LIMIT 1000)) RETURNING 1
    )
    SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM tokens) + (SELECT count(*) FROM families)
$$;

-- What precedes a tenant, or is beyond one. The operator's role is given by nobody: it is made with the schema's owner.

CREATE FUNCTION brain.find_key(p_digests bytea[])
RETURNS TABLE (tenant_id text, key_id text, role text, permissions text[], scopes text[], user_id text,
    expires_at timestamptz, hash bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT k.tenant_id, k.id, k.role, r.permissions, k.scopes, k.user_id, k.expires_at, k.hash
        FROM brain.api_keys k JOIN brain.tenants t ON t.id = k.tenant_id
        LEFT JOIN brain.roles r ON r.tenant_id = k.tenant_id AND r.name = k.role
        LEFT JOIN brain.users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
        WHERE k.hash = ANY (p_digests) AND k.revoked_at IS NULL AND t.status = 'active'
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
            AND (k.user_id IS NULL OR u.status = 'active')
$$;

CREATE FUNCTION brain.rehash_key(p_old bytea, p_new bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- After the master key was replaced: whoever shows a key shows that it may.
    UPDATE brain.api_keys SET hash = p_new WHERE hash = p_old AND role <> 'operator'
$$;

CREATE FUNCTION brain.list_tenants(p_after text, p_descending boolean, p_status text, p_limit integer)
RETURNS TABLE (id text) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    SELECT t.id FROM brain.tenants t
        WHERE (p_status IS NULL OR t.status = p_status)
            AND (p_after IS NULL OR CASE WHEN p_descending THEN t.id < p_after ELSE t.id > p_after END)
        ORDER BY CASE WHEN p_descending THEN t.id END DESC, t.id LIMIT p_limit
$$;

CREATE FUNCTION brain.create_tenant(p_id text, p_name text, p_settings jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
BEGIN
    INSERT INTO brain.tenants (id, name, settings) VALUES (p_id, p_name, p_settings - 'operator');
END $$;

CREATE FUNCTION brain.change_tenant(p_id text, p_name text, p_status text, p_settings jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Null leaves a field as it is. False: there is no such tenant. The operator's tenant is not suspended.
BEGIN
    UPDATE brain.tenants t SET name = coalesce(p_name, t.name), updated_at = clock_timestamp(),
            status = CASE WHEN t.settings ? 'operator' THEN t.status ELSE coalesce(p_status, t.status) END,
            settings = CASE WHEN p_settings IS NULL THEN t.settings
                WHEN t.settings ? 'operator' THEN p_settings || jsonb_build_object('operator', t.settings->'operator')
                ELSE p_settings - 'operator' END
        WHERE t.id = p_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM brain.access_changed(p_id, 'tenant', p_id);
    RETURN true;
END $$;

CREATE FUNCTION brain.delete_tenant(p_id text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- All rows that name the tenant by a foreign key go with it. False: no such tenant, or the operator's own.
BEGIN
    DELETE FROM brain.tenants t WHERE t.id = p_id AND NOT t.settings ? 'operator';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM brain.access_changed(p_id, 'tenant', p_id);
    RETURN true;
END $$;

CREATE FUNCTION brain.create_key(
    p_tenant text, p_id text, p_name text, p_hash bytea, p_prefix text, p_role text, p_scopes text[], p_user text,
    p_created_by text, p_expires timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
BEGIN
    IF p_role = 'operator' OR p_tenant IS DISTINCT FROM brain.tenant() THEN
        RAISE EXCEPTION 'nobody gives the operator''s role, or a key of another tenant' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO brain.api_keys (tenant_id, id, name, hash, prefix, role, scopes, user_id, created_by, expires_at)
        VALUES (p_tenant, p_id, p_name, p_hash, p_prefix, p_role, p_scopes, p_user, p_created_by, p_expires);
END $$;

CREATE FUNCTION brain.end_key(p_tenant text, p_id text, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Null: it is revoked now; else it expires then, if it did not before. False: no such key, or the operator's.
BEGIN
    UPDATE brain.api_keys k SET
            revoked_at = CASE WHEN p_at IS NULL THEN coalesce(k.revoked_at, clock_timestamp()) ELSE k.revoked_at END,
            expires_at = CASE WHEN p_at IS NULL THEN k.expires_at ELSE least(k.expires_at, p_at) END
        WHERE k.tenant_id = p_tenant AND p_tenant = brain.tenant() AND k.id = p_id AND k.role <> 'operator';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM brain.access_changed(p_tenant, 'key', p_id);
    RETURN true;
END $$;

CREATE FUNCTION brain.keys_used(p_tenants text[], p_ids text[], p_at timestamptz[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
    UPDATE brain.api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
        FROM unnest(p_tenants, p_ids, p_at) AS u (tenant, id, at) WHERE k.tenant_id = u.tenant AND k.id = u.id
$$;

CREATE FUNCTION brain.put_signing_key(
    p_id text, p_algorithm text, p_public jsonb, p_sealed jsonb, p_from timestamptz)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
BEGIN
    INSERT INTO brain.signing_keys (id, algorithm, public, sealed, signs_from)
        VALUES (p_id, p_algorithm, p_public, p_sealed, p_from);
    PERFORM brain.access_changed('', 'signing', p_id);
END $$;

CREATE FUNCTION brain.end_signing_key(p_id text, p_signs timestamptz, p_verifies timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
BEGIN
    UPDATE brain.signing_keys SET signs_until = p_signs, verifies_until = p_verifies WHERE id = p_id;
    PERFORM brain.access_changed('', 'signing', p_id);
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['roles', 'users', 'sessions', 'refresh_tokens', 'revoked_tokens', 'audit'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.roles, brain.users, brain.sessions, brain.refresh_tokens TO brain_app;
GRANT SELECT, INSERT ON brain.revoked_tokens, brain.audit TO brain_app;
GRANT SELECT ON brain.signing_keys, brain.access_version TO brain_app;

CREATE POLICY sign_in ON brain.roles FOR SELECT TO brain_definer USING (true);
CREATE POLICY sign_in ON brain.users FOR SELECT TO brain_definer USING (true);
CREATE POLICY sweep ON brain.revoked_tokens TO brain_definer USING (true);
CREATE POLICY sweep ON brain.sessions TO brain_definer USING (true);
CREATE POLICY administer ON brain.tenants TO brain_definer USING (true);
CREATE POLICY administer ON brain.api_keys TO brain_definer USING (true);
GRANT SELECT ON brain.roles, brain.users TO brain_definer;
GRANT SELECT, DELETE ON brain.revoked_tokens, brain.sessions TO brain_definer;
GRANT INSERT, UPDATE, DELETE ON brain.tenants TO brain_definer;
GRANT INSERT, UPDATE ON brain.api_keys TO brain_definer;
GRANT SELECT, INSERT, UPDATE ON brain.signing_keys TO brain_definer;
GRANT SELECT, UPDATE ON brain.access_version TO brain_definer;
GRANT SELECT, INSERT, DELETE ON brain.access_changes TO brain_definer;

DO $$
DECLARE f regprocedure;
BEGIN
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOREACH f IN ARRAY ARRAY(SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'brain'::regnamespace
        AND p.proname IN ('access_changed', 'access_since', 'revoked_now', 'prune_access', 'find_key', 'rehash_key', 'list_tenants',
            'create_tenant', 'change_tenant', 'delete_tenant', 'create_key', 'end_key', 'keys_used', 'put_signing_key',
            'end_signing_key')) LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app';
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
