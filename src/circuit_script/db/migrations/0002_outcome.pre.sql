-- Outcome: one statement settles one or several executions.

-- The values of `old` that `new` replaces; a key that `old` lacks is null.
CREATE FUNCTION circuit.replaced(old jsonb, new jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_object_agg(n.key, coalesce(old -> n.key, 'null'::jsonb)), '{}'::jsonb)
        FROM jsonb_each(new) AS n WHERE (old -> n.key) IS DISTINCT FROM n.value);

-- Raises CS001 when a lane has another owner by now, or when a queue row has been settled by somebody
-- else: the caller's result then does not count.
CREATE FUNCTION circuit.settle(
    worker uuid, held_lanes smallint[], epochs bigint[],
    -- executions
    x_id uuid[], x_tenant text[], x_release bigint[], x_handler smallint[], x_object text[], x_event text[],
    x_records smallint[], x_status text[], x_reason text[], x_detail text[], x_started timestamptz[],
    x_usage jsonb[],
    -- outcomes, one per queue row
    q_id bigint[], q_handler smallint[], q_delivery uuid[], q_ordinal smallint[], q_execution uuid[],
    q_tenant text[], q_record text[], q_status text[], q_reason text[], q_attempts smallint[],
    q_not_before timestamptz[], q_held_until timestamptz[],
    -- records: state of the event merged with our own writes; `written` is our writes alone
    r_tenant text[], r_object text[], r_id text[], r_data jsonb[], r_written jsonb[], r_seq bigint[],
    r_gone boolean[], r_depth smallint[],
    -- records that a handler inserted, which may have been deleted before
    v_tenant text[], v_object text[], v_id text[],
    -- effects
    e_id uuid[], e_tenant text[], e_execution uuid[], e_release bigint[], e_lane smallint[], e_order bigint[],
    e_connector text[], e_operation text[], e_target text[], e_record text[], e_payload jsonb[], e_status text[],
    e_depth smallint[]
) RETURNS boolean
LANGUAGE plpgsql
-- As in take_in: cached plans date from empty tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    n bigint;
    stays bigint;
BEGIN
    IF (SELECT count(*) FROM unnest(held_lanes, epochs) AS h (lane, epoch)
        JOIN circuit.lanes l ON l.lane = h.lane AND l.epoch = h.epoch AND l.owner = worker)
       <> cardinality(held_lanes) THEN
        RAISE EXCEPTION 'lane lost' USING ERRCODE = 'CS001';
    END IF;

    IF cardinality(q_id) > 0 THEN
        DELETE FROM circuit.queue q
        USING unnest(q_id, q_handler, q_status) AS s (id, handler, status)
        WHERE q.id = s.id AND q.handler = s.handler AND s.status NOT IN ('retry', 'deferred');
        GET DIAGNOSTICS n = ROW_COUNT;
        stays := cardinality(array_positions(q_status, 'retry')) + cardinality(array_positions(q_status, 'deferred'));
        IF n <> cardinality(q_id) - stays THEN
            RAISE EXCEPTION 'event settled by another' USING ERRCODE = 'CS001';
        END IF;
        IF stays > 0 THEN
            -- A commit that is repeated finds another number of attempts; what is put off counts none, but has its time.
            UPDATE circuit.queue q
            SET attempts = s.attempts, not_before = s.not_before, held_until = s.held_until,
                waits_for = CASE WHEN s.status = 'deferred' THEN coalesce(s.reason, '') END
            FROM unnest(q_id, q_handler, q_status, q_attempts, q_not_before, q_held_until, q_reason)
                 AS s (id, handler, status, attempts, not_before, held_until, reason)
            WHERE q.id = s.id AND q.handler = s.handler
              AND ((s.status = 'retry' AND q.attempts = s.attempts - 1)
                   OR (s.status = 'deferred' AND q.attempts = s.attempts AND q.not_before IS DISTINCT FROM s.not_before));
            GET DIAGNOSTICS n = ROW_COUNT;
            IF n <> stays THEN
                RAISE EXCEPTION 'event settled by another' USING ERRCODE = 'CS001';
            END IF;
        END IF;

        INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
        SELECT * FROM unnest(q_delivery, q_ordinal, q_handler, q_execution, q_tenant, q_status, q_reason);

        IF array_position(q_status, 'dead') IS NOT NULL THEN
            INSERT INTO circuit.dead_letters
                (kind, tenant, delivery, ordinal, handler, execution, record, attempts, reason, event_id, object, event)
            SELECT 'event', s.tenant, s.delivery, s.ordinal, s.handler, s.execution, s.record, s.attempts,
                   coalesce(s.reason, ''), s.id, x.object, x.event
            FROM unnest(q_tenant, q_delivery, q_ordinal, q_handler, q_execution, q_record, q_attempts, q_reason,
                        q_status, q_id)
                 AS s (tenant, delivery, ordinal, handler, execution, record, attempts, reason, status, id)
            LEFT JOIN unnest(x_id, x_object, x_event) AS x (id, object, event) ON x.id = s.execution
            WHERE s.status = 'dead';
        END IF;
    END IF;

    INSERT INTO circuit.executions
        (id, tenant, release, handler, object, event, records, status, reason, detail, started_at, usage)
    SELECT x.id, x.tenant, x.release, x.handler, x.object, x.event, x.records, x.status, x.reason, x.detail,
           x.started, x.usage
    FROM unnest(x_id, x_tenant, x_release, x_handler, x_object, x_event, x_records, x_status, x_reason, x_detail,
                x_started, x_usage)
         AS x (id, tenant, release, handler, object, event, records, status, reason, detail, started, usage)
    -- A checkpoint has stored it already; or the commit of a batch that is split is repeated, as its answer was lost: it
    -- settles no row by which that could be known.
    ON CONFLICT (id) DO UPDATE
    SET status = excluded.status, reason = excluded.reason, detail = excluded.detail, ended_at = excluded.ended_at,
        usage = excluded.usage;

    IF cardinality(v_id) > 0 THEN  -- inserted again by a handler
        UPDATE circuit.records r SET deleted = false
        FROM unnest(v_tenant, v_object, v_id) AS v (tenant, object, id)
        WHERE r.tenant = v.tenant AND r.object = v.object AND r.id = v.id AND r.deleted;
    END IF;
    IF cardinality(r_id) > 0 THEN
        -- Events of one record may settle out of their order: two handlers, or a retry that was overtaken. The latest
        -- event wins; an older one only fills in what is missing; a deleted record keeps its row, so that nothing older
        -- brings it back. Our own writes (`written`) count when they are made.
        INSERT INTO circuit.records AS r (tenant, object, id, data, written, seq, deleted, depth)
        SELECT i.tenant, i.object, i.id, i.data, i.written, i.seq, i.gone, i.depth
        FROM unnest(r_tenant, r_object, r_id, r_data, r_written, r_seq, r_gone, r_depth)
             AS i (tenant, object, id, data, written, seq, gone, depth)
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant, object, id) DO UPDATE SET
            data = CASE WHEN excluded.deleted THEN r.data
                        WHEN r.seq < excluded.seq THEN r.data || excluded.data
                        WHEN r.seq > excluded.seq THEN excluded.data || r.data || excluded.written
                        ELSE r.data || excluded.written END,
            before = CASE WHEN r.seq > excluded.seq THEN r.before
                          WHEN r.seq = excluded.seq THEN circuit.replaced(r.data, excluded.written) || r.before
                          WHEN excluded.deleted THEN '{}'::jsonb
                          ELSE circuit.replaced(r.data, excluded.data) END,
            written = r.written || excluded.written,
            depth = CASE WHEN excluded.depth > 0 THEN excluded.depth ELSE r.depth END,
            deleted = CASE WHEN excluded.deleted THEN r.deleted OR excluded.seq = 0 OR excluded.seq >= r.seq
                           ELSE r.deleted AND r.seq >= excluded.seq END,
            seq = greatest(r.seq, excluded.seq),
            updated_at = now();
    END IF;

    IF cardinality(e_id) > 0 THEN
        INSERT INTO circuit.effects
            (id, tenant, execution, release, lane, order_hash, connector, operation, target, record, payload,
             status, settled_at, depth)
        SELECT e.id, e.tenant, e.execution, e.release, e.lane, e.order_hash, e.connector, e.operation, e.target,
               e.record, e.payload, e.status, CASE WHEN e.status = 'delivered' THEN now() END, e.depth
        FROM unnest(e_id, e_tenant, e_execution, e_release, e_lane, e_order, e_connector, e_operation, e_target,
                    e_record, e_payload, e_status, e_depth) WITH ORDINALITY
             AS e (id, tenant, execution, release, lane, order_hash, connector, operation, target, record,
                   payload, status, depth, nth)
        ORDER BY e.nth;  -- `seq` rises with it: who owns a lane commits what its rows make, one commit after another
    END IF;
    RETURN true;
END $$;

-- Who may see what ------------------------------------------------------------------------------
-- circuit_road (intake, dispatch, outcome) may cross tenants; circuit_tenant sees the tenant of its session.

CREATE FUNCTION circuit.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('circuit.tenant', true), '');

-- The row security of one table, for migrations: circuit_road sees and writes all of it.
CREATE FUNCTION circuit.of_road(part regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
    EXECUTE format('CREATE POLICY road ON %s TO circuit_road USING (true) WITH CHECK (true)', part);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO circuit_road', part);
END $$;

-- And circuit_tenant sees the rows of which `mine` holds, in `columns`: all of them, or a list in parentheses.
CREATE FUNCTION circuit.of_tenant(
    part regclass, columns text DEFAULT '', mine text DEFAULT 'tenant = circuit.current_tenant()'
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM circuit.of_road(part);
    EXECUTE format('CREATE POLICY tenant ON %s FOR SELECT TO circuit_tenant USING (%s)', part, mine);
    EXECUTE format('GRANT SELECT %s ON %s TO circuit_tenant', columns, part);
END $$;
REVOKE EXECUTE ON FUNCTION circuit.of_road, circuit.of_tenant FROM PUBLIC;

SELECT circuit.of_tenant('circuit.deliveries');
SELECT circuit.of_tenant('circuit.events');
SELECT circuit.of_tenant('circuit.queue');
SELECT circuit.of_tenant('circuit.executions');
SELECT circuit.of_tenant('circuit.outcomes');
SELECT circuit.of_tenant('circuit.effects');
SELECT circuit.of_tenant('circuit.dead_letters');
SELECT circuit.of_tenant('circuit.journal');
SELECT circuit.of_tenant('circuit.circuit_logs');
SELECT circuit.of_tenant('circuit.records');
GRANT USAGE ON SCHEMA circuit TO circuit_road, circuit_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA circuit TO circuit_road;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA circuit TO circuit_road;
GRANT SELECT ON circuit.lead_scores, circuit.handlers, circuit.releases TO circuit_tenant;
