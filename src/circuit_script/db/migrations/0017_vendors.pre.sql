-- What vendors took lately, by connector: for the vendors' page. What the built-in CRM takes is not told there.
CREATE INDEX effects_taken ON circuit.effects (connector, settled_at) INCLUDE (tenant, operation, target)
    WHERE status = 'delivered' AND connector <> 'local';

-- Which release is live, for a tenant that looks at the limits of the handlers that work for it.
CREATE FUNCTION circuit.live_release() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (SELECT release FROM circuit.live);
REVOKE EXECUTE ON FUNCTION circuit.live_release FROM PUBLIC;
GRANT EXECUTE ON FUNCTION circuit.live_release TO circuit_road, circuit_tenant;
