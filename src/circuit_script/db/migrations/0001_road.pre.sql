-- The road of an event: ledger, queue, lanes, outcomes, effects, the built-in CRM.
-- Ledger tables are partitioned by the version 7 UUID of their delivery (or execution), that is, by time.

CREATE FUNCTION circuit.uuid_floor(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Releases and what they handle -----------------------------------------------------------------

CREATE TABLE circuit.releases (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content_hash text NOT NULL UNIQUE,
    platform     text NOT NULL,
    manifest     jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE circuit.live (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    release  bigint NOT NULL REFERENCES circuit.releases,
    since    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE circuit.handlers (
    id   smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- Routes of the live release: replaced in the transaction that makes a release live.
CREATE TABLE circuit.routes (
    object  text NOT NULL,
    event   text NOT NULL,
    handler smallint NOT NULL REFERENCES circuit.handlers,
    PRIMARY KEY (object, event, handler)
);

-- The ledger ------------------------------------------------------------------------------------

CREATE TABLE circuit.deliveries (
    id          uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    source      text NOT NULL,
    account     text NOT NULL,
    tenant      text,
    vendor_id   text,
    headers     jsonb NOT NULL,
    body        bytea NOT NULL
) PARTITION BY RANGE (id);

CREATE TABLE circuit.events (
    delivery  uuid NOT NULL,
    ordinal   smallint NOT NULL,
    id        bigint NOT NULL,
    tenant    text,
    object    text NOT NULL,
    event     text NOT NULL,
    record    text NOT NULL,
    order_key text NOT NULL,
    handled   smallint NOT NULL,
    PRIMARY KEY (delivery, ordinal)
) PARTITION BY RANGE (delivery);
COMMENT ON COLUMN circuit.events.handled IS 'number of handlers it was queued for; 0 is unrouted';

CREATE INDEX events_record ON circuit.events (tenant, record, id);
CREATE INDEX events_unrouted ON circuit.events (id) WHERE handled = 0;
CREATE SEQUENCE circuit.event_ids;

-- A table of its own: a unique key on a partitioned table would need the partition's column.
CREATE TABLE circuit.seen (
    source    text NOT NULL,
    account   text NOT NULL,
    vendor_id text NOT NULL,
    delivery  uuid NOT NULL,
    PRIMARY KEY (source, account, vendor_id)
);
CREATE INDEX seen_delivery ON circuit.seen (delivery);

-- For vendors without an id: only a body equal to the record's latest within 60 s is a duplicate.
CREATE TABLE circuit.latest (
    source     text NOT NULL,
    account    text NOT NULL,
    record_key text NOT NULL,
    body_hash  bytea NOT NULL,
    delivery   uuid NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, account, record_key)
);

CREATE TABLE circuit.refusals (
    day    date NOT NULL DEFAULT current_date,
    source text NOT NULL,
    reason text NOT NULL,
    n      bigint NOT NULL,
    PRIMARY KEY (day, source, reason)
);

-- The queue -------------------------------------------------------------------------------------

CREATE TABLE circuit.queue (
    lane       smallint NOT NULL,
    id         bigint NOT NULL,
    handler    smallint NOT NULL,
    attempts   smallint NOT NULL DEFAULT 0,
    ordinal    smallint NOT NULL,
    order_hash bigint NOT NULL,
    delivery   uuid NOT NULL,
    not_before timestamptz,
    held_until timestamptz,
    tenant     text NOT NULL,
    object     text NOT NULL,
    event      text NOT NULL,
    record     text NOT NULL,
    depth      smallint NOT NULL DEFAULT 0,
    waits_for  text,
    PRIMARY KEY (id, handler)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
        autovacuum_analyze_scale_factor = 0.5, autovacuum_vacuum_cost_delay = 1);
COMMENT ON COLUMN circuit.queue.depth IS
    'how many executions, one causing the next, led to the event; what comes from outside has 0';
COMMENT ON COLUMN circuit.queue.waits_for IS 'why it is put off that waits for money or a quota; null for every other';
CREATE INDEX queue_waits ON circuit.queue (tenant, handler) WHERE waits_for IS NOT NULL;

CREATE TABLE circuit.lanes (
    lane      smallint PRIMARY KEY,
    owner     uuid,
    epoch     bigint NOT NULL DEFAULT 0,
    low_water bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO circuit.lanes (lane) SELECT generate_series(0, 63);

CREATE TABLE circuit.workers (
    id         uuid PRIMARY KEY,
    host       text NOT NULL,
    pid        integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    asleep     boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- Executions and outcomes -----------------------------------------------------------------------

CREATE TABLE circuit.executions (
    id         uuid PRIMARY KEY,
    tenant     text NOT NULL,
    release    bigint NOT NULL,
    handler    smallint NOT NULL,
    object     text NOT NULL,
    event      text NOT NULL,
    records    smallint NOT NULL,
    status     text NOT NULL CHECK (status IN ('succeeded', 'partial', 'failed', 'breached', 'cancelled', 'deferred',
                                           'echo')),
    reason     text,
    detail     text,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL DEFAULT now(),
    usage      jsonb NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX executions_trouble ON circuit.executions (id)
    WHERE status NOT IN ('succeeded', 'echo', 'cancelled', 'deferred');

-- One row per event, handler and attempt. Endpoints fail without a retry and a dead letter: whoever called was told.
CREATE TABLE circuit.outcomes (
    delivery  uuid NOT NULL,
    ordinal   smallint NOT NULL,
    handler   smallint NOT NULL,
    execution uuid NOT NULL,
    tenant    text NOT NULL,
    status    text NOT NULL CHECK (status IN ('succeeded', 'retry', 'deferred', 'dead', 'echo', 'cancelled', 'failed')),
    reason    text,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (delivery, ordinal, handler, execution)
) PARTITION BY RANGE (delivery);
-- Rows stand in the order of their executions, nearly: such an index costs an insert next to nothing.
CREATE INDEX outcomes_execution ON circuit.outcomes USING brin (execution)
    WITH (pages_per_range = 64, autosummarize = on);

CREATE TABLE circuit.effects (
    id              uuid PRIMARY KEY,
    tenant          text NOT NULL,
    execution       uuid NOT NULL,
    release         bigint NOT NULL,
    lane            smallint NOT NULL,
    order_hash      bigint NOT NULL,
    connector       text NOT NULL,
    operation       text NOT NULL,
    target          text NOT NULL,
    record          text,
    payload         jsonb NOT NULL,
    status          text NOT NULL DEFAULT 'pending'
                    CHECK (status IN ('pending', 'delivered', 'dead', 'in_doubt')),
    attempts        smallint NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL DEFAULT now(),
    reason          text,
    settled_at      timestamptz,
    depth           smallint NOT NULL DEFAULT 0,
    seq             bigint NOT NULL GENERATED ALWAYS AS IDENTITY
) WITH (fillfactor = 80);
COMMENT ON COLUMN circuit.effects.depth IS 'as deep as its execution; what it causes is, too';
COMMENT ON COLUMN circuit.effects.seq IS 'the order in which effects of one order key leave: of their commits, not of clocks';
-- The courier: what is due of each tenant and target, and whether something earlier of its order key waits.
CREATE INDEX effects_due ON circuit.effects (tenant, connector, target, next_at) WHERE status = 'pending';
CREATE INDEX effects_order ON circuit.effects (tenant, order_hash, seq) WHERE status = 'pending';
CREATE INDEX effects_settled ON circuit.effects (settled_at) WHERE status = 'delivered';
CREATE INDEX effects_execution ON circuit.effects (execution);

CREATE TABLE circuit.dead_letters (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      text NOT NULL CHECK (kind IN ('event', 'effect')),
    tenant    text NOT NULL,
    delivery  uuid,
    ordinal   smallint,
    handler   smallint,
    effect    uuid,
    execution uuid,
    record    text,
    attempts  smallint NOT NULL,
    reason    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letters_record ON circuit.dead_letters (tenant, record);

-- Replies of calls that left at once, so that a retried record does not pay twice.
CREATE TABLE circuit.journal (
    event     bigint NOT NULL,
    handler   smallint NOT NULL,
    key       bytea NOT NULL,
    tenant    text NOT NULL,
    reply     bytea NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event, handler, key)
);

CREATE TABLE circuit.circuit_logs (
    at        timestamptz NOT NULL,
    level     text NOT NULL,
    message   text NOT NULL,
    context   jsonb,
    execution uuid NOT NULL,
    handler   text NOT NULL,
    tenant    text NOT NULL,
    record    text,
    release   bigint
) PARTITION BY RANGE (execution);
CREATE INDEX circuit_logs_execution ON circuit.circuit_logs (execution);
CREATE INDEX circuit_logs_record ON circuit.circuit_logs (tenant, record) WHERE record IS NOT NULL;

-- The built-in CRM ------------------------------------------------------------------------------

CREATE TABLE circuit.records (
    tenant     text NOT NULL,
    object     text NOT NULL,
    id         text NOT NULL,
    data       jsonb NOT NULL,
    before     jsonb,
    written    jsonb NOT NULL DEFAULT '{}',
    seq        bigint NOT NULL DEFAULT 0,
    deleted    boolean NOT NULL DEFAULT false,
    depth      smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    contact    text GENERATED ALWAYS AS (
        CASE WHEN octet_length(data ->> 'contactId') <= 255 THEN data ->> 'contactId' END) STORED,
    PRIMARY KEY (tenant, object, id)
) WITH (fillfactor = 80, toast_tuple_target = 8160);
COMMENT ON COLUMN circuit.records.before IS 'the values that event seq replaced: the before-image of that event';
COMMENT ON COLUMN circuit.records.written IS 'what our own effects wrote, by which an echo is known';
COMMENT ON COLUMN circuit.records.depth IS 'of the execution that wrote last: an echo of its write is as deep';
CREATE INDEX records_contact ON circuit.records (tenant, contact, object) WHERE contact IS NOT NULL;

CREATE VIEW circuit.lead_scores WITH (security_invoker = true) AS
SELECT tenant, data ->> 'contactId' AS lead, (data ->> 'at')::timestamptz AS at,
       (data ->> 'total')::int AS total, (data ->> 'fit')::int AS fit,
       (data ->> 'intent')::int AS intent, (data ->> 'timing')::int AS timing,
       data ->> 'grade' AS grade, data ->> 'band' AS band, data ->> 'route' AS route,
       data -> 'parts' AS parts, data -> 'reasons' AS reasons,
       data ->> 'profile' AS profile, data -> 'signals' AS signals, id
FROM circuit.records WHERE object = 'LeadScore' AND NOT deleted;

-- Partitions ------------------------------------------------------------------------------------

-- toast_tuple_target: rows of up to 8 KB stay in their page as they are. Compressing each body of 3 KB cost more than
-- all the rest of its insert.
--
-- One partition; true when it was made. LIKE and ATTACH lock the parent against other DDL only, where PARTITION OF
-- would shut out every reader and writer. Rows of that day that came before it are moved out of the default
-- partition, unless there are so many that intake would have to wait: they stay, until retention deletes them.
CREATE FUNCTION circuit.make_partition(parent text, day date) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    other text := parent || '_other';
    lowest uuid := circuit.uuid_floor(day::timestamp AT TIME ZONE 'UTC');
    beyond uuid := circuit.uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
    key text := (SELECT a.attname FROM pg_partitioned_table p
                 JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
                 WHERE p.partrelid = format('circuit.%I', parent)::regclass);
    early integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('circuit.make_partitions'));
    IF to_regclass(format('circuit.%I', child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM circuit.%I WHERE %I >= $1 AND %2$I < $2 LIMIT 10001) AS e',
                   other, key) INTO early USING lowest, beyond;
    IF early > 10000 THEN
        RETURN false;
    END IF;
    IF early > 0 OR day <= (now() AT TIME ZONE 'UTC')::date THEN
        -- A row on its way into the default partition would be refused once this one is there: such writers wait.
        EXECUTE format('LOCK TABLE circuit.%I IN SHARE ROW EXCLUSIVE MODE', parent);
    END IF;
    EXECUTE format('CREATE TABLE circuit.%I (LIKE circuit.%I INCLUDING ALL) WITH (toast_tuple_target = 8160)',
                   child, parent);
    EXECUTE format('WITH moved AS (DELETE FROM circuit.%I WHERE %I >= $1 AND %2$I < $2 RETURNING *) '
                   'INSERT INTO circuit.%I SELECT * FROM moved', other, key, child) USING lowest, beyond;
    EXECUTE format('ALTER TABLE circuit.%I ATTACH PARTITION circuit.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, child, lowest, beyond);
    RETURN true;
END $$;

CREATE FUNCTION circuit.make_partitions(days integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT count(*)::integer
    FROM unnest(ARRAY['deliveries', 'events', 'executions', 'outcomes', 'circuit_logs']) AS parent,
         generate_series(-1, days) AS n
    WHERE circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date + n)
$$;

CREATE TABLE circuit.deliveries_other PARTITION OF circuit.deliveries DEFAULT;
CREATE TABLE circuit.events_other PARTITION OF circuit.events DEFAULT;
CREATE TABLE circuit.executions_other PARTITION OF circuit.executions DEFAULT;
CREATE TABLE circuit.outcomes_other PARTITION OF circuit.outcomes DEFAULT;
CREATE TABLE circuit.circuit_logs_other PARTITION OF circuit.circuit_logs DEFAULT;
SELECT circuit.make_partitions(7);

-- Intake: one group of deliveries, one commit ---------------------------------------------------

-- The lock makes the order of event ids the order of commits, so that a reader with a cursor misses
-- nothing. It is one statement on purpose: a gateway that stops half way holds no lock.
CREATE FUNCTION circuit.take_in(
    ids uuid[], sources text[], accounts text[], tenants text[], vendor_ids text[], record_keys text[],
    hashes bytea[], headers jsonb[], bodies bytea[],
    event_delivery integer[], ordinals smallint[], objects text[], events text[], records text[],
    order_keys text[], order_hashes bigint[], lanes smallint[], depths smallint[]
) RETURNS TABLE (kind text, delivery uuid, first uuid)
LANGUAGE plpgsql
-- Plans are kept from when the tables were empty: without this, each group would scan all of `seen`
-- (measured: 2 ms per group of 32 at first, 14 ms after 30,000 deliveries).
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    fresh boolean[] := array_fill(true, ARRAY[cardinality(ids)]);
    clash record;
    count_queued bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7207418001);

    INSERT INTO circuit.seen AS s (source, account, vendor_id, delivery)
    SELECT sources[i], accounts[i], vendor_ids[i], ids[i]
    FROM generate_subscripts(ids, 1) AS i WHERE vendor_ids[i] IS NOT NULL
    ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;
    FOR clash IN
        SELECT i, s.delivery AS earlier
        FROM generate_subscripts(ids, 1) AS i
        JOIN circuit.seen s ON s.source = sources[i] AND s.account = accounts[i] AND s.vendor_id = vendor_ids[i]
        WHERE vendor_ids[i] IS NOT NULL AND s.delivery <> ids[i]
    LOOP
        fresh[clash.i] := false;
        RETURN QUERY SELECT 'duplicate', ids[clash.i], clash.earlier;
    END LOOP;

    IF EXISTS (SELECT 1 FROM unnest(record_keys) AS k WHERE k IS NOT NULL) THEN
        INSERT INTO circuit.latest AS l (source, account, record_key, body_hash, delivery)
        SELECT sources[i], accounts[i], record_keys[i], hashes[i], ids[i]
        FROM generate_subscripts(ids, 1) AS i WHERE record_keys[i] IS NOT NULL
        ORDER BY 1, 2, 3
        ON CONFLICT (source, account, record_key) DO UPDATE
        SET body_hash = excluded.body_hash, delivery = excluded.delivery, at = excluded.at
        WHERE l.body_hash <> excluded.body_hash OR l.at < now() - interval '60 seconds';
        FOR clash IN
            SELECT i, l.delivery AS earlier
            FROM generate_subscripts(ids, 1) AS i
            JOIN circuit.latest l
              ON l.source = sources[i] AND l.account = accounts[i] AND l.record_key = record_keys[i]
            WHERE record_keys[i] IS NOT NULL AND l.delivery <> ids[i]
        LOOP
            fresh[clash.i] := false;
            RETURN QUERY SELECT 'duplicate', ids[clash.i], clash.earlier;
        END LOOP;
    END IF;

    INSERT INTO circuit.deliveries (id, source, account, tenant, vendor_id, headers, body)
    SELECT d.id, d.source, d.account, d.tenant, d.vendor_id, d.headers, d.body
    FROM unnest(ids, sources, accounts, tenants, vendor_ids, headers, bodies, fresh)
         AS d (id, source, account, tenant, vendor_id, headers, body, fresh)
    WHERE d.fresh;

    WITH arrived AS MATERIALIZED (
        SELECT nextval('circuit.event_ids') AS id, e.*
        FROM (
            SELECT ids[u.nth] AS delivery, tenants[u.nth] AS tenant, u.ordinal, u.object, u.event, u.record,
                   u.order_key, u.order_hash, u.lane, depths[u.nth] AS depth
            FROM unnest(event_delivery, ordinals, objects, events, records, order_keys, order_hashes, lanes)
                 WITH ORDINALITY
                 AS u (nth, ordinal, object, event, record, order_key, order_hash, lane, place)
            WHERE fresh[u.nth]
            ORDER BY u.place
        ) e
    ), queued AS (
        INSERT INTO circuit.queue
            (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event, record, depth)
        SELECT a.lane, a.id, r.handler, a.ordinal, a.order_hash, a.delivery, a.tenant, a.object, a.event, a.record,
               a.depth
        FROM arrived a JOIN circuit.routes r ON r.object = a.object AND r.event = a.event
        WHERE a.tenant IS NOT NULL
        RETURNING id
    ), handled AS (
        SELECT id, count(*) AS n FROM queued GROUP BY id
    ), kept AS (
        INSERT INTO circuit.events (delivery, ordinal, id, tenant, object, event, record, order_key, handled)
        SELECT a.delivery, a.ordinal, a.id, a.tenant, a.object, a.event, a.record, a.order_key, coalesce(h.n, 0)
        FROM arrived a LEFT JOIN handled h ON h.id = a.id
    )
    SELECT count(*) INTO count_queued FROM queued;

    IF count_queued > 0 AND EXISTS (SELECT 1 FROM circuit.workers w WHERE w.asleep AND w.expires_at > now()) THEN
        RETURN QUERY SELECT 'asleep', NULL::uuid, NULL::uuid;
    END IF;
END $$;
