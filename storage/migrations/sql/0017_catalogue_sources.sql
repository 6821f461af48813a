-- Services that tenants' products come from, where they are not kept here.
-- Code of before runs on it: it knows nothing of these, and answers from the built-in catalogue.

CREATE TABLE brain.catalogue_sources (
    tenant_id text COLLATE "C" PRIMARY KEY REFERENCES brain.tenants ON DELETE CASCADE,
    version uuid NOT NULL DEFAULT gen_random_uuid(),  -- what was remembered of another one is not believed
    url text NOT NULL,
    auth text NOT NULL CHECK (auth IN ('none', 'bearer', 'header')),
    header text,
    sealed jsonb,
    timeout_ms integer NOT NULL CHECK (timeout_ms BETWEEN 100 AND 10000),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((auth = 'none') = (sealed IS NULL)),
    CHECK ((auth = 'header') = (header IS NOT NULL))
);

ALTER TABLE brain.catalogue_sources ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.catalogue_sources FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON brain.catalogue_sources TO brain_app USING (tenant_id = brain.tenant());
CREATE POLICY administration ON brain.catalogue_sources TO CURRENT_USER USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.catalogue_sources TO brain_app;

-- That a tenant has another source is told as what changed of access is: every replica hears it.
ALTER TABLE brain.access_changes DROP CONSTRAINT access_changes_kind_check;
ALTER TABLE brain.access_changes ADD CONSTRAINT access_changes_kind_check
    CHECK (kind IN ('tenant', 'key', 'user', 'role', 'token', 'signing', 'cache', 'catalogue'));
