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

SELECT circuit.of_tenant('circuit.pauses', mine =>
    'tenant = circuit.current_tenant() OR (kind = ''tenant'' AND value = circuit.current_tenant())');
