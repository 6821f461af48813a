-- What users thought of answers, and the complexity scorers that tenants trained from it.
CREATE TABLE brain.feedback (
    tenant_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    score double precision NOT NULL CHECK (score BETWEEN 0 AND 1),
    comment text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, message_id),
    FOREIGN KEY (tenant_id, message_id) REFERENCES brain.messages (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE brain.complexity_scorers (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    version integer NOT NULL,
    embedder text NOT NULL,
    artefact bytea NOT NULL CHECK (octet_length(artefact) <= 4194304),
    metrics jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, version)
);
CREATE UNIQUE INDEX complexity_scorers_active ON brain.complexity_scorers (tenant_id) WHERE active;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['feedback', 'complexity_scorers'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.feedback TO brain_app;
GRANT SELECT ON brain.complexity_scorers TO brain_app;  -- `brain route train` writes them, as the schema's owner
