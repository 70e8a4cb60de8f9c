-- What keeps the platform well: copies, forgotten persons, and when each chore was last done.

-- One row per chore: when it last succeeded, and what went wrong since. A chore that succeeds has no failure.
CREATE TABLE circuit.upkeep (
    chore        text PRIMARY KEY,
    succeeded_at timestamptz,
    failed_at    timestamptz,
    failure      text,
    detail       jsonb NOT NULL DEFAULT '{}'
);

-- Which installation this is: copies of two of them may lie in one place, and each deletes its own only. A restored
-- database is an installation of its own.
CREATE TABLE circuit.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id       uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO circuit.installation DEFAULT VALUES;

-- Who was forgotten. A record's id is kept as a hash only: enough to know it again in a copy of before.
CREATE TABLE circuit.forgets (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant  text,
    object  text,
    salt    bytea NOT NULL,
    hash    bytea NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by_whom text NOT NULL,
    blanked jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN circuit.forgets.tenant IS 'null: deliveries that belong to no tenant';
COMMENT ON COLUMN circuit.forgets.hash IS 'SHA-256 of salt, record and tenant';

CREATE FUNCTION circuit.forget_hash(salt bytea, tenant text, record text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(salt || convert_to(record, 'UTF8') || '\x00'::bytea || convert_to(coalesce(tenant, ''), 'UTF8'));

SELECT circuit.of_road('circuit.upkeep');
SELECT circuit.of_road('circuit.installation');
SELECT circuit.of_tenant('circuit.forgets');

-- Small tables whose rows change all the time are cleaned early: a thousand dead rows are many there.
ALTER TABLE circuit.lanes SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                               autovacuum_vacuum_cost_delay = 1);
ALTER TABLE circuit.workers SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE circuit.quota_leases SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE circuit.quota_use SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE circuit.budgets SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Millions of rows that are done, and few that wait: a fifth of them dead would be too late.
ALTER TABLE circuit.effects SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
                                 autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 1);
ALTER TABLE circuit.journal SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
ALTER TABLE circuit.records SET (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX effects_discarded ON circuit.effects (settled_at) WHERE status = 'discarded';
