-- Jobs: what waits for its moment, which unique keys are held, and when schedules fire next.

-- A job that is due later than in a minute waits here; then it goes to the queue, whose rows stand in memory.
CREATE TABLE circuit.delayed_jobs (
    id         uuid PRIMARY KEY,
    tenant     text NOT NULL,
    name       text NOT NULL,
    body       bytea NOT NULL,
    depth      smallint NOT NULL,
    due_at     timestamptz NOT NULL,
    unique_key text,
    vendor_id  text NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX delayed_jobs_due ON circuit.delayed_jobs (due_at);

-- Who holds a unique key: while the job is delayed, or one of its events stands in the queue.
CREATE TABLE circuit.job_keys (
    tenant text NOT NULL,
    name   text NOT NULL,
    key    text NOT NULL,
    job    uuid NOT NULL,
    event  bigint,
    PRIMARY KEY (tenant, name, key)
);

-- What the live release says.
CREATE TABLE circuit.schedules (
    handler  text PRIMARY KEY,
    tenants  text[],
    cron     text,
    every    float8,
    timezone text NOT NULL,
    jitter   float8 NOT NULL,
    catch_up text NOT NULL CHECK (catch_up IN ('last', 'all', 'none')),
    CHECK ((cron IS NULL) <> (every IS NULL))
);
COMMENT ON COLUMN circuit.schedules.tenants IS 'for whom it fires; null: for all that there are';

-- When a schedule fires next for a tenant. A tenant that comes later begins with the next firing.
CREATE TABLE circuit.schedule_tenants (
    handler  text NOT NULL,
    tenant   text NOT NULL,
    next_at  timestamptz,
    last_at  timestamptz,
    last_job uuid,
    skipped  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (handler, tenant)
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.schedule_tenants.next_at
    IS 'advanced in the transaction that takes the firing in; null: never again';
COMMENT ON COLUMN circuit.schedule_tenants.skipped IS 'firings that were missed and left out, as catch_up says';
CREATE INDEX schedule_tenants_due ON circuit.schedule_tenants (next_at);

CREATE INDEX queue_jobs ON circuit.queue (id) WHERE object = 'Job';

CREATE FUNCTION circuit.holds_key(k circuit.job_keys) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT 1 FROM circuit.queue q WHERE q.id = k.event)
    OR EXISTS (SELECT 1 FROM circuit.queue q WHERE q.past = k.event)
    OR EXISTS (SELECT 1 FROM circuit.delayed_jobs d WHERE d.id = k.job);

-- Take jobs in: those that are due within `horizon` go to the queue, the others wait. Of each job one row: `kind` is
-- queued, later, duplicate (it came before), or held (`holder` is the job that has its key). `asleep` says that a
-- dispatcher is to be woken. The lock is take_in's: intake waits for it, so a client that stands still with it is cut
-- off.
CREATE FUNCTION circuit.take_in_jobs(
    ids uuid[], deliveries uuid[], accounts text[], tenants text[], vendor_ids text[], names text[], bodies bytea[],
    depths smallint[], order_hashes bigint[], dues timestamptz[], unique_keys text[], horizon interval
) RETURNS TABLE (id uuid, kind text, holder uuid, asleep boolean)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    kinds text[] := array_fill('queued'::text, ARRAY[cardinality(ids)]);
    holders uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(ids)]);
    now_ integer[];
    found_ uuid;
    sleeps boolean := false;
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '5000', true);
    PERFORM pg_advisory_xact_lock(7207418001);
    FOR i IN 1 .. cardinality(ids) LOOP
        IF EXISTS (SELECT 1 FROM circuit.seen s WHERE s.source = 'circuit' AND s.account = accounts[i]
                   AND s.vendor_id = vendor_ids[i]) THEN
            kinds[i] := 'duplicate';
            CONTINUE;
        END IF;
        IF unique_keys[i] IS NOT NULL THEN
            SELECT k.job INTO found_ FROM circuit.job_keys k
            WHERE k.tenant = tenants[i] AND k.name = names[i] AND k.key = unique_keys[i]
            AND k.job <> ids[i] AND circuit.holds_key(k);
            IF found_ IS NOT NULL THEN
                holders[i] := found_;
                kinds[i] := 'held';
                CONTINUE;
            END IF;
            INSERT INTO circuit.job_keys AS k (tenant, name, key, job)
            VALUES (tenants[i], names[i], unique_keys[i], ids[i])
            ON CONFLICT (tenant, name, key) DO UPDATE SET job = excluded.job, event = NULL;
        END IF;
        IF dues[i] > now() + horizon THEN
            kinds[i] := 'later';
            INSERT INTO circuit.delayed_jobs (id, tenant, name, body, depth, due_at, unique_key, vendor_id)
            VALUES (ids[i], tenants[i], names[i], bodies[i], depths[i], dues[i], unique_keys[i], vendor_ids[i])
            ON CONFLICT DO NOTHING;
        ELSIF unique_keys[i] IS NOT NULL THEN
            -- One by one, as a later one of this call may want the same key.
            sleeps := circuit.put_jobs(ARRAY[i], ids, deliveries, accounts, tenants, vendor_ids, names, bodies, depths,
                                       order_hashes, dues) OR sleeps;
            UPDATE circuit.job_keys k SET event = e.id FROM circuit.events e
            WHERE e.delivery = deliveries[i] AND k.tenant = tenants[i] AND k.name = names[i]
            AND k.key = unique_keys[i] AND k.job = ids[i];
        ELSE
            now_ := now_ || i;
        END IF;
    END LOOP;
    IF now_ IS NOT NULL THEN
        sleeps := circuit.put_jobs(now_, ids, deliveries, accounts, tenants, vendor_ids, names, bodies, depths,
                                   order_hashes, dues) OR sleeps;
    END IF;
    RETURN QUERY SELECT ids[n], kinds[n], holders[n], sleeps FROM generate_subscripts(ids, 1) AS n;
END $$;

-- The road's own way into ledger and queue, for those at `places`; then the moments of those that have one.
CREATE FUNCTION circuit.put_jobs(
    places integer[], ids uuid[], deliveries uuid[], accounts text[], tenants text[], vendor_ids text[], names text[],
    bodies bytea[], depths smallint[], order_hashes bigint[], dues timestamptz[]
) RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    n integer := cardinality(places);
    d record;
    sleeps boolean;
BEGIN
    SELECT array_agg(deliveries[p] ORDER BY o) AS delivery, array_agg(accounts[p] ORDER BY o) AS account,
           array_agg(tenants[p] ORDER BY o) AS tenant, array_agg(vendor_ids[p] ORDER BY o) AS vendor_id,
           array_agg(bodies[p] ORDER BY o) AS body, array_agg(o::integer ORDER BY o) AS nth,
           array_agg(names[p] ORDER BY o) AS name, array_agg(ids[p]::text ORDER BY o) AS record,
           array_agg(order_hashes[p] ORDER BY o) AS order_hash, array_agg(depths[p] ORDER BY o) AS depth,
           array_agg((((order_hashes[p] % 64) + 64) % 64)::smallint ORDER BY o) AS lane
    INTO d FROM unnest(places) WITH ORDINALITY AS u (p, o);
    SELECT bool_or(t.kind = 'asleep') INTO sleeps FROM circuit.take_in(
        d.delivery, array_fill('circuit'::text, ARRAY[n]), d.account, d.tenant, d.vendor_id,
        array_fill(NULL::text, ARRAY[n]), array_fill(''::bytea, ARRAY[n]), array_fill('{}'::jsonb, ARRAY[n]), d.body,
        d.nth, array_fill(0::smallint, ARRAY[n]), array_fill('Job'::text, ARRAY[n]), d.name, d.record, d.record,
        d.order_hash, d.lane, d.depth) AS t;
    UPDATE circuit.queue q SET not_before = dues[p]
    FROM unnest(places) AS p JOIN circuit.events e ON e.delivery = deliveries[p]
    WHERE dues[p] > now() AND q.id = e.id;
    RETURN coalesce(sleeps, false);
END $$;

SELECT circuit.of_tenant('circuit.delayed_jobs');
SELECT circuit.of_tenant('circuit.job_keys');
SELECT circuit.of_tenant('circuit.schedule_tenants');
-- For whom else it fires is no tenant's business.
SELECT circuit.of_tenant('circuit.schedules', '(handler, cron, every, timezone, jitter, catch_up)', mine =>
    'EXISTS (SELECT 1 FROM circuit.schedule_tenants t WHERE t.handler = schedules.handler)');
