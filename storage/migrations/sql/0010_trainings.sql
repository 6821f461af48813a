CREATE OR REPLACE FUNCTION brain.claim_intent_training(
    p_trainer uuid, p_lease interval, p_attempts integer, OUT tenant_id text, OUT id text, OUT attempt integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- A training that waits, or whose trainer's lease ran out: the oldest of the tenant for which nobody has worked for the
-- longest time, one at a time of each tenant. All null: none.
BEGIN
    UPDATE brain.intent_trainings t SET status = 'failed', completed_at = clock_timestamp(), request = NULL,
            error = jsonb_build_object('message', 'the training was interrupted ' || p_attempts || ' times',
                'type', 'internal_error', 'param', NULL, 'code', 'training_interrupted')
        WHERE t.status = 'running' AND t.leased_until < clock_timestamp() AND t.attempt >= p_attempts;
    UPDATE brain.intent_trainings t SET status = 'running', claimed_by = p_trainer, attempt = t.attempt + 1,
            leased_until = clock_timestamp() + p_lease, started_at = coalesce(t.started_at, clock_timestamp())
        WHERE (t.tenant_id, t.id) = (
            SELECT w.tenant_id, w.id FROM brain.intent_trainings w
            WHERE w.status = 'running' AND w.leased_until < clock_timestamp()
                OR w.status = 'queued' AND NOT EXISTS (SELECT FROM brain.intent_trainings r
                    WHERE r.tenant_id = w.tenant_id AND r.status = 'running')
            ORDER BY (SELECT max(s.leased_until) FROM brain.intent_trainings s WHERE s.tenant_id = w.tenant_id)
                NULLS FIRST, w.created_at, w.tenant_id, w.id LIMIT 1 FOR UPDATE OF w SKIP LOCKED)
        RETURNING t.tenant_id, t.id, t.attempt INTO tenant_id, id, attempt;
EXCEPTION WHEN unique_violation THEN  -- another trainer took one of this tenant's in this moment
    tenant_id := NULL;
END $$;
