-- Back to one usage row an attempt and one reply a turn. Nothing is thrown away that revision 0001 has a place for.
DROP FUNCTION brain.accept_turn, brain.next_attempt, brain.finish_turn, brain.charge, brain.hold, brain.tell_budget,
    brain.reserve, brain.settle, brain.open_budget, brain.expire_reservations, brain.usage_totals;

DROP INDEX brain.messages_one_reply_a_version;
UPDATE brain.messages SET turn_id = turn_id || '/' || version WHERE version > 0;  -- no turn has two replies then
ALTER TABLE brain.messages DROP COLUMN version, DROP COLUMN superseded_by;
CREATE UNIQUE INDEX messages_one_reply ON brain.messages (tenant_id, turn_id) WHERE role = 'assistant';

ALTER TABLE brain.turns DROP COLUMN caller, DROP COLUMN regenerates, DROP COLUMN models, DROP COLUMN keep,
    DROP COLUMN reserved_usd;

CREATE TEMPORARY TABLE summed ON COMMIT DROP AS
    SELECT tenant_id, turn_id, attempt, coalesce(max(conversation_id), '') AS conversation_id,
        (array_agg(model ORDER BY reply DESC, call DESC))[1] AS model,
        (array_agg(provider ORDER BY reply DESC, call DESC))[1] AS provider,
        sum(prompt_tokens)::bigint AS prompt_tokens, sum(cached_tokens)::bigint AS cached_tokens,
        sum(completion_tokens)::bigint AS completion_tokens, sum(cost_usd) AS cost_usd,
        bool_or(estimated) AS estimated, max(created_at) AS created_at
    FROM brain.usage GROUP BY 1, 2, 3;
DELETE FROM brain.usage;
DROP POLICY aggregate ON brain.usage;
REVOKE SELECT ON brain.usage FROM brain_definer;
DROP INDEX brain.usage_by_day, brain.usage_by_user, brain.usage_age;
ALTER TABLE brain.usage
    DROP CONSTRAINT usage_pkey,
    DROP COLUMN call, DROP COLUMN user_id, DROP COLUMN caller, DROP COLUMN why, DROP COLUMN reply, DROP COLUMN basis,
    DROP COLUMN day,
    ALTER COLUMN cost_usd TYPE double precision,
    ALTER COLUMN conversation_id SET NOT NULL,
    ADD PRIMARY KEY (tenant_id, turn_id, attempt);
INSERT INTO brain.usage (tenant_id, turn_id, attempt, conversation_id, model, provider, prompt_tokens, cached_tokens,
        completion_tokens, cost_usd, estimated, created_at)
    SELECT tenant_id, turn_id, attempt, conversation_id, model, provider, prompt_tokens, cached_tokens,
        completion_tokens, cost_usd, estimated, created_at FROM summed;

DROP TABLE brain.reservations, brain.budgets, brain.model_settings;
