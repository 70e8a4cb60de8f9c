-- Controls: what a person has paused. Nothing new of it starts; what waits of it stays in its queue.

CREATE TABLE circuit.pauses (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL CHECK (kind IN ('everything', 'trigger', 'tenant', 'connector', 'record')),
    value   text NOT NULL,
    tenant  text,
    reason  text NOT NULL DEFAULT '',
    by_whom text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (kind, value, tenant)
);
COMMENT ON COLUMN circuit.pauses.tenant IS 'of this tenant only; null for all of them';

ALTER TABLE circuit.pauses ENABLE ROW LEVEL SECURITY;
ALTER TABLE circuit.pauses FORCE ROW LEVEL SECURITY;
CREATE POLICY road ON circuit.pauses TO circuit_road USING (true) WITH CHECK (true);
CREATE POLICY tenant ON circuit.pauses FOR SELECT TO circuit_tenant
    USING (tenant = circuit.current_tenant() OR (kind = 'tenant' AND value = circuit.current_tenant()));
GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.pauses TO circuit_road;
GRANT SELECT ON circuit.pauses TO circuit_tenant;
