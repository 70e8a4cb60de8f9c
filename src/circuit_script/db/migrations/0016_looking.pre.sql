-- What people look at: a tenant's executions, newest first, also of one handler or only those with trouble.

-- Made here for what is small; maintenance builds the rest one by one, while all goes on (circuit.indexes_to_build).
CREATE INDEX executions_tenant ON ONLY circuit.executions (tenant, id);
CREATE INDEX executions_tenant_handler ON ONLY circuit.executions (tenant, handler, id);
CREATE INDEX executions_tenant_trouble ON ONLY circuit.executions (tenant, id)
    WHERE status NOT IN ('succeeded', 'echo', 'cancelled', 'deferred');

DO $$
DECLARE
    each record;
BEGIN
    FOR each IN SELECT * FROM circuit.indexes_to_build(8000000) LOOP
        EXECUTE replace(each.build, ' CONCURRENTLY ', ' ');
        EXECUTE each.attach;
    END LOOP;
END $$;

-- Where the queue begins, so that a tenant's look at it need not pass what is done: row security hides the lanes.
CREATE FUNCTION circuit.queue_floor() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (SELECT min(low_water) FROM circuit.lanes);
REVOKE EXECUTE ON FUNCTION circuit.queue_floor FROM PUBLIC;
GRANT EXECUTE ON FUNCTION circuit.queue_floor TO circuit_road, circuit_tenant;
