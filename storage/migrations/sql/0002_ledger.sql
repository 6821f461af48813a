-- The ledger: a row for every call of a provider, budgets with what is held of them, and answers made anew.
-- Additive: code of revision 0001 runs on beside it.

CREATE TABLE brain.model_settings (
    tenant_id text COLLATE "C" PRIMARY KEY REFERENCES brain.tenants ON DELETE CASCADE,
    settings jsonb NOT NULL,  -- domain.model_settings.ModelSettings
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE brain.budgets (  -- one row for a tenant that has or had a budget; brain.usage is the record
    tenant_id text COLLATE "C" PRIMARY KEY REFERENCES brain.tenants ON DELETE CASCADE,
    period text NOT NULL DEFAULT 'month' CHECK (period IN ('day', 'month')),
    starts date NOT NULL DEFAULT '-infinity',  -- of the period that `spent_usd` counts, in UTC
    soft_usd numeric,
    hard_usd numeric,
    spent_usd numeric NOT NULL DEFAULT 0,
    reserved_usd numeric NOT NULL DEFAULT 0 CHECK (reserved_usd >= 0),
    soft_told numeric,  -- the limit whose crossing was told in this period
    hard_told numeric
) WITH (fillfactor = 50);

CREATE TABLE brain.reservations (  -- of completions that no turn keeps; a turn's own stands in brain.turns
    tenant_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    usd numeric NOT NULL CHECK (usd >= 0),
    expires_at timestamptz NOT NULL,  -- its process may have died
    PRIMARY KEY (tenant_id, turn_id)
);
CREATE INDEX reservations_expiry ON brain.reservations (expires_at);

ALTER TABLE brain.usage
    ALTER COLUMN conversation_id DROP NOT NULL,
    ALTER COLUMN cost_usd TYPE numeric USING cost_usd::numeric,
    ADD COLUMN call integer NOT NULL DEFAULT 1,
    ADD COLUMN user_id text,
    ADD COLUMN caller text COLLATE "C",
    ADD COLUMN why text NOT NULL DEFAULT 'first',
    ADD COLUMN reply boolean NOT NULL DEFAULT true,
    ADD COLUMN basis text NOT NULL
        GENERATED ALWAYS AS (CASE WHEN estimated THEN 'estimated' ELSE 'reported' END) STORED,
    ADD COLUMN day date NOT NULL GENERATED ALWAYS AS ((created_at AT TIME ZONE 'UTC')::date) STORED,
    DROP CONSTRAINT usage_pkey,
    ADD PRIMARY KEY (tenant_id, turn_id, attempt, call);
CREATE INDEX usage_by_day ON brain.usage (tenant_id, day, model);
CREATE INDEX usage_by_user ON brain.usage (tenant_id, user_id, day) WHERE user_id IS NOT NULL;
CREATE INDEX usage_age ON brain.usage USING brin (created_at);

ALTER TABLE brain.turns
    ADD COLUMN caller text COLLATE "C",
    ADD COLUMN regenerates text COLLATE "C",
    ADD COLUMN models text[] NOT NULL DEFAULT '{}',
    ADD COLUMN keep text NOT NULL DEFAULT 'first' CHECK (keep IN ('first', 'best', 'all')),
    ADD COLUMN reserved_usd numeric;

ALTER TABLE brain.messages
    ADD COLUMN version integer NOT NULL DEFAULT 0,  -- 0 is the turn's reply; others were kept beside it
    ADD COLUMN superseded_by text COLLATE "C";  -- the message that stands in its place in prompts
CREATE UNIQUE INDEX messages_one_reply_a_version ON brain.messages (tenant_id, turn_id, version) WHERE role = 'assistant';
DROP INDEX brain.messages_one_reply;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['model_settings', 'budgets', 'reservations'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.model_settings, brain.reservations TO brain_app;
GRANT SELECT, INSERT, UPDATE ON brain.budgets TO brain_app;
CREATE POLICY aggregate ON brain.usage FOR SELECT TO brain_definer USING (true);
CREATE POLICY sweep ON brain.reservations TO brain_definer USING (true);
CREATE POLICY sweep ON brain.budgets TO brain_definer USING (true);
GRANT SELECT ON brain.usage TO brain_definer;
GRANT SELECT, DELETE ON brain.reservations TO brain_definer;
GRANT SELECT, UPDATE ON brain.budgets TO brain_definer;
