-- Keeping small: partitions made without shutting out intake, and indexes for what is due and what is forgotten.

CREATE INDEX seen_delivery ON circuit.seen (delivery);
CREATE INDEX effects_settled ON circuit.effects (settled_at) WHERE status = 'delivered';

-- The courier: what is due of each tenant and target, and whether something earlier of its order key waits.
CREATE INDEX effects_due ON circuit.effects (tenant, connector, target, next_at) WHERE status = 'pending';
CREATE INDEX effects_order ON circuit.effects (tenant, order_hash, id) WHERE status = 'pending';
DROP INDEX circuit.effects_pending;

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

CREATE OR REPLACE FUNCTION circuit.make_partitions(days integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT count(*)::integer
    FROM unnest(ARRAY['deliveries', 'events', 'executions', 'outcomes', 'circuit_logs']) AS parent,
         generate_series(-1, days) AS n
    WHERE circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date + n)
$$;
