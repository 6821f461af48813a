-- What stands for a conversation's early turns in its prompts. Additive: code that knows nothing of it runs on beside it.
CREATE TABLE brain.summaries (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    up_to bigint NOT NULL,  -- the last turn that it covers: the seq of its user message
    seq bigint NOT NULL,  -- the last message of it
    sections jsonb NOT NULL,  -- domain.context.Section
    facts jsonb NOT NULL,  -- domain.context.Fact
    made_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversation_id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES brain.conversations ON DELETE CASCADE
);
ALTER TABLE brain.summaries ENABLE ROW LEVEL SECURITY;
ALTER TABLE brain.summaries FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON brain.summaries TO brain_app USING (tenant_id = brain.tenant());
CREATE POLICY administration ON brain.summaries TO CURRENT_USER USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.summaries TO brain_app;

CREATE FUNCTION brain.summary_of(p_tenant text, p_conversation text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    RETURN (SELECT jsonb_build_object('sections', s.sections, 'facts', s.facts) FROM brain.summaries s
        WHERE s.tenant_id = p_tenant AND s.conversation_id = p_conversation);
END $$;

CREATE FUNCTION brain.keep_summary(
    p_tenant text, p_conversation text, p_epoch bigint, p_activation uuid, p_up_to bigint, p_seq bigint,
    p_sections jsonb, p_facts jsonb, p_made_by text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('brain.tenant', p_tenant, true);
    PERFORM brain.fence(p_tenant, p_conversation, p_epoch, p_activation);
    INSERT INTO brain.summaries (tenant_id, conversation_id, up_to, seq, sections, facts, made_by, updated_at)
        VALUES (p_tenant, p_conversation, p_up_to, p_seq, p_sections, p_facts, p_made_by, clock_timestamp())
        ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET up_to = excluded.up_to, seq = excluded.seq,
            sections = excluded.sections, facts = excluded.facts, made_by = excluded.made_by,
            updated_at = excluded.updated_at;
END $$;

CREATE FUNCTION brain.forget_summaries() RETURNS trigger LANGUAGE plpgsql AS $$
-- A summary must not tell what was deleted: it is made anew of what is left.
BEGIN
    DELETE FROM brain.summaries s USING (SELECT gone.tenant_id, gone.conversation_id, min(gone.turn_order) AS first
            FROM gone GROUP BY 1, 2) g
        WHERE s.tenant_id = g.tenant_id AND s.conversation_id = g.conversation_id AND s.up_to >= g.first;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_summaries AFTER DELETE ON brain.messages
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION brain.forget_summaries();

REVOKE ALL ON FUNCTION brain.summary_of, brain.keep_summary, brain.forget_summaries FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.summary_of, brain.keep_summary, brain.forget_summaries TO brain_app;

CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)
LANGUAGE sql IMMUTABLE AS $$ SELECT '0007', '0004' $$;
