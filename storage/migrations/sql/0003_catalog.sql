-- The model catalogue's part in the database: providers registered at run time, and versions that tell what changed.
-- Additive: code of revision 0002 runs on beside it.
--
-- Providers are the operator's data: they belong to no tenant, every tenant's turns need all of them, and they hold no
-- secret (keys are references, checked here too). So the service's role may read them whole, which its row-level policy
-- says; no policy and no grant lets it write. It changes a provider through the two functions below alone, one row a
-- call, and only as it knows that row: who may do that is decided in the ingress, by the caller's role.

CREATE TABLE brain.catalog_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    providers bigint NOT NULL,
    settings bigint NOT NULL
);
INSERT INTO brain.catalog_version (providers, settings) VALUES (0, 0);

CREATE TABLE brain.providers (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    entry jsonb NOT NULL CHECK (jsonb_typeof(entry) = 'object' AND length(entry::text) <= 1048576
        AND coalesce(entry->>'key' ~ '^\$\{[A-Za-z_][A-Za-z0-9_]*\}$', true)),  -- domain.model.Provider
    removed boolean NOT NULL DEFAULT false,  -- hides the configuration's provider of this name
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE brain.model_settings ADD COLUMN version bigint NOT NULL DEFAULT 0;
CREATE INDEX model_settings_version ON brain.model_settings (version);

CREATE FUNCTION brain.raise_version() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- More than before and at least the moment's microseconds: a restored backup never repeats a version. The row's lock is
-- held to the commit, so versions become visible in their order.
DECLARE
    v bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    IF TG_TABLE_NAME = 'providers' THEN
        UPDATE brain.catalog_version c SET providers = greatest(c.providers + 1, v) RETURNING c.providers INTO v;
    ELSE
        UPDATE brain.catalog_version c SET settings = greatest(c.settings + 1, v) RETURNING c.settings INTO v;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.version := v;
    RETURN NEW;
END $$;
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE OR DELETE ON brain.providers
    FOR EACH ROW EXECUTE FUNCTION brain.raise_version();
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE OR DELETE ON brain.model_settings
    FOR EACH ROW EXECUTE FUNCTION brain.raise_version();

CREATE FUNCTION brain.put_provider(p_name text, p_entry jsonb, p_expected bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- The entry's new version; null, and nothing done, where it has another one than p_expected (0: there is none yet).
-- Without p_entry the provider is removed.
DECLARE
    v bigint;
BEGIN
    IF p_expected = 0 THEN
        INSERT INTO brain.providers (name, entry, removed, version)
            VALUES (p_name, coalesce(p_entry, '{}'), p_entry IS NULL, 0)
            ON CONFLICT DO NOTHING RETURNING version INTO v;
    ELSE
        UPDATE brain.providers SET entry = coalesce(p_entry, '{}'), removed = p_entry IS NULL,
                updated_at = clock_timestamp()
            WHERE name = p_name AND version = p_expected RETURNING version INTO v;
    END IF;
    RETURN v;
END $$;

CREATE FUNCTION brain.reset_provider(p_name text, p_expected bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Whether the entry had this version, and is gone now.
BEGIN
    DELETE FROM brain.providers WHERE name = p_name AND version = p_expected;
    RETURN FOUND;
END $$;

CREATE FUNCTION brain.model_settings_since(p_version bigint, p_limit integer) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Which tenants' settings changed: ids only.
    SELECT tenant_id FROM brain.model_settings WHERE version > p_version ORDER BY version LIMIT p_limit
$$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['providers', 'catalog_version'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY everyone ON brain.' || t || ' FOR SELECT TO brain_app USING (true)';
        EXECUTE 'CREATE POLICY catalog ON brain.' || t || ' TO brain_definer USING (true)';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
CREATE POLICY changes ON brain.model_settings FOR SELECT TO brain_definer USING (true);
GRANT SELECT ON brain.providers, brain.catalog_version TO brain_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.providers TO brain_definer;
GRANT SELECT, UPDATE ON brain.catalog_version TO brain_definer;
GRANT SELECT ON brain.model_settings TO brain_definer;

REVOKE ALL ON FUNCTION brain.raise_version(), brain.put_provider(text, jsonb, bigint),
    brain.reset_provider(text, bigint), brain.model_settings_since(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.put_provider(text, jsonb, bigint), brain.reset_provider(text, bigint),
    brain.model_settings_since(bigint, integer) TO brain_app;
GRANT CREATE ON SCHEMA brain TO brain_definer;
ALTER FUNCTION brain.raise_version() OWNER TO brain_definer;
ALTER FUNCTION brain.put_provider(text, jsonb, bigint) OWNER TO brain_definer;
ALTER FUNCTION brain.reset_provider(text, bigint) OWNER TO brain_definer;
ALTER FUNCTION brain.model_settings_since(bigint, integer) OWNER TO brain_definer;
REVOKE CREATE ON SCHEMA brain FROM brain_definer;
